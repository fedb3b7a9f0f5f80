"""TextTopK: keep the vision tokens that the whole text attends to most, at a fixed count."""

from dataclasses import dataclass
from typing import final

from jaxtyping import Float
from torch import Tensor

from mustdrop.fixed_counts import TopK
from mustdrop.strategy import PrefillView


@final
@dataclass(frozen=True)
class TextTopK(TopK):
    """Keep the vision tokens that the text behind the image attends to most, averaged over heads.

    It is the text-guided counterpart of ``ClsTopK``: V_j of MustDrop's Eq. 8 is ranked instead of
    compared with a threshold.

    Source: control, ours, after MustDrop, arXiv:2411.10803, Eq. 8.

    Attributes:
        keep: Number of vision tokens kept per prompt.
        layer: Layer after which tokens are dropped, by its attention.
    """

    layer: int = 0

    def score(self, view: PrefillView) -> Float[Tensor, " vision"]:
        score = view.attention(rows="text").float().mean(0).sum(0)
        view.log_score(score)
        return score
