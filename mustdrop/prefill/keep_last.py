"""Keep the last vision tokens: the control for scores that favour what stands near the text."""

from dataclasses import dataclass
from typing import final

from mustdrop.reduction import Reduction
from mustdrop.strategy import Count, PrefillStrategy, PrefillView, require_fields


@final
@dataclass(frozen=True)
class KeepLast(PrefillStrategy):
    """Keep the last ``keep`` vision tokens in prompt order: the foot of the last image.

    Source: control, ours.

    Attributes:
        keep: Vision tokens kept per prompt.
        layer: Acts after this layer; -1: before the language model.
    """

    keep: Count
    layer: int = -1

    def __post_init__(self) -> None:
        require_fields(self)

    @property
    def layers(self) -> tuple[int]:
        return (self.layer,)

    def reduce(self, view: PrefillView) -> Reduction:
        # original positions: earlier stages may have put the tokens in another order
        return view.top(view.positions.float(), self.keep)
