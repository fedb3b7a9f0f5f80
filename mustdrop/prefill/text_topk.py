"""TextTopK: keep the vision tokens that the whole text attends to most, at a fixed count."""

from dataclasses import dataclass
from typing import final

from mustdrop.fixed_counts import KeepPerPrompt
from mustdrop.reduction import Reduction
from mustdrop.strategy import Keep, PrefillView, require_fields


@final
@dataclass(frozen=True)
class TextTopK(KeepPerPrompt):
    """Keep the vision tokens that the text behind the image attends to most, averaged over heads.

    It is the text-guided counterpart of ``ClsTopK``: V_j of MustDrop's Eq. 8 is ranked instead of
    compared with a threshold.

    Source: control, ours, after MustDrop, arXiv:2411.10803, Eq. 8.

    Attributes:
        keep: Number of vision tokens kept per prompt.
        layer: Layer after which tokens are dropped, by its attention.
    """

    keep: Keep
    layer: int = 0

    def __post_init__(self) -> None:
        require_fields(self)

    def reduce(self, view: PrefillView) -> Reduction:
        score = view.attention(rows="text").float().mean(0).sum(0)
        view.log_score(score)
        return view.top(score, self.kept(view))
