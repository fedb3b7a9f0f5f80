"""FastV: after one early layer, keep the vision tokens that the last text token attends to most."""

from dataclasses import dataclass
from typing import Literal, final

from jaxtyping import Float
from torch import Tensor

from mustdrop.fixed_counts import TopK
from mustdrop.strategy import PrefillView


@final
@dataclass(frozen=True)
class FastV(TopK):
    """After one early layer, keep the vision tokens that receive the most attention in it.

    The attention is averaged over heads. It comes from the prompt's last token, as in the authors'
    code (``last``), or from all tokens of the prompt on average, as in the paper (``all``).

    Source: FastV, arXiv:2403.06764, Sec. 4.1. The paper's K is ``layer`` + 1: K layers run on all
        tokens.
    Differs from the authors' code: ``keep`` is a count, not a ratio; each sample of a batch has its
        own choice.

    Attributes:
        keep: Number of vision tokens kept per prompt.
        layer: Layer after which tokens are dropped, by its attention.
        rows: Tokens whose attention counts, ``last`` or ``all``.
    """

    layer: int = 1
    rows: Literal["last", "all"] = "last"

    def score(self, view: PrefillView) -> Float[Tensor, " vision"]:
        if self.rows == "all":
            score = view.received_attention()
        else:
            score = view.attention(rows="last").float().mean(0).squeeze(0)
        view.log_score(score)
        return score
