"""KeepLast: keep the last vision tokens (a control for scores that favour tokens near the text)."""

from dataclasses import dataclass
from typing import final

from jaxtyping import Float
from torch import Tensor

from mustdrop.fixed_counts import TopK
from mustdrop.strategy import PrefillView


@final
@dataclass(frozen=True)
class KeepLast(TopK):
    """Keep the last ``keep`` vision tokens of the prompt, which show the bottom of its last image.

    Source: control, ours.

    Attributes:
        keep: Number of vision tokens kept per prompt.
        layer: Layer after which tokens are dropped; -1: before the language model.
    """

    def score(self, view: PrefillView) -> Float[Tensor, " vision"]:
        # Original positions, because earlier stages may have reordered the tokens.
        return view.positions.float()
