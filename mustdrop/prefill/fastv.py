"""FastV: an image is worth half its tokens after layer two."""

from dataclasses import dataclass
from typing import Literal, final

from mustdrop.reduction import Reduction
from mustdrop.strategy import Count, PrefillStrategy, PrefillView, require_fields


@final
@dataclass(frozen=True)
class FastV(PrefillStrategy):
    """Keep the vision tokens that are attended to most, averaged over heads.

    By the prompt's last token, as the authors' code has it (``last``), or by all tokens of the
    prompt on average, as the paper writes it (``all``).

    Source: FastV, arXiv:2403.06764, Sec. 4.1. The paper's K is ``layer`` + 1: K layers run on all
        tokens.
    Differs from the authors' code: ``keep`` is a count, not a ratio; each sample of a batch chooses
        for itself.

    Attributes:
        keep: Vision tokens kept per prompt.
        layer: Acts after this layer, on its attention.
        rows: Whose attention counts, ``last`` or ``all``.
    """

    keep: Count
    layer: int = 1
    rows: Literal["last", "all"] = "last"

    def __post_init__(self) -> None:
        require_fields(self)

    @property
    def layers(self) -> tuple[int]:
        return (self.layer,)

    def reduce(self, view: PrefillView) -> Reduction:
        if self.rows == "all":
            score = view.received_attention()
        else:
            score = view.attention(rows="last").float().mean(0).squeeze(0)
        view.log_score(score)
        return view.top(score, self.keep)
