"""KeepLast: keep the last vision tokens (a control for scores that favour tokens near the text)."""

from dataclasses import dataclass
from typing import final

from mustdrop.fixed_counts import KeepPerPrompt
from mustdrop.reduction import Reduction
from mustdrop.strategy import Keep, PrefillView, require_fields


@final
@dataclass(frozen=True)
class KeepLast(KeepPerPrompt):
    """Keep the last ``keep`` vision tokens of the prompt, which show the bottom of its last image.

    Source: control, ours.

    Attributes:
        keep: Number of vision tokens kept per prompt.
        layer: Layer after which tokens are dropped; -1: before the language model.
    """

    keep: Keep
    layer: int = -1

    def __post_init__(self) -> None:
        require_fields(self)

    def reduce(self, view: PrefillView) -> Reduction:
        # Original positions, because earlier stages may have reordered the tokens.
        return view.top(view.positions.float(), self.kept(view))
