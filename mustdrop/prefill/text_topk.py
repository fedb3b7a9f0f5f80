"""Selection by the whole text's attention: MustDrop's global filter at a fixed count."""

from dataclasses import dataclass
from typing import final

from mustdrop.reduction import Reduction
from mustdrop.strategy import Count, PrefillStrategy, PrefillView, require_fields


@final
@dataclass(frozen=True)
class TextTopK(PrefillStrategy):
    """Keep the vision tokens that all text behind them attends to most, averaged over heads.

    The text-guided counterpart of ``ClsTopK``: V_j of MustDrop's Eq. 8, ranked instead of held
    against a threshold.

    Source: control, ours, after MustDrop, arXiv:2411.10803, Eq. 8.

    Attributes:
        keep: Vision tokens kept per prompt.
        layer: Acts after this layer, on its attention.
    """

    keep: Count
    layer: int = 0

    def __post_init__(self) -> None:
        require_fields(self)

    @property
    def layers(self) -> tuple[int]:
        return (self.layer,)

    def reduce(self, view: PrefillView) -> Reduction:
        score = view.attention(rows="text").float().mean(0).sum(0)
        view.log_score(score)
        return view.top(score, self.keep)
