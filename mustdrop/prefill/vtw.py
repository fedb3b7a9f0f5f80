"""VTW, visual token withdrawal: drop all vision tokens at once after one decoder layer."""

from dataclasses import dataclass, replace
from typing import final

import torch

from mustdrop.reduction import Reduction
from mustdrop.strategy import Budget, PrefillStrategy, PrefillView, require_fields


@final
@dataclass(frozen=True)
class VTW(PrefillStrategy):
    """Drop all vision tokens after one decoder layer, K - 1.

    Key tokens stay if another stage protects some. K is the first layer, from the fifth on, with
    a divergence of at most eta; see :mod:`mustdrop.calibration.vtw`.

    Source: VTW, arXiv:2405.05803; lzhxmu/VTW a3d8cfc3, VTW.py:310-314 (positions kept).
    Differs from the authors' code: vision tokens are located in each prompt, where the code expects
        them at constant positions; any batch works.

    Attributes:
        layer: Last layer that sees vision tokens, K - 1; -1: no layer does. Or the budget that it
            follows from, in whole layers, for prompts of one size.
    """

    layer: int | Budget

    def __post_init__(self) -> None:
        require_fields(self)

    @property
    def layers(self) -> tuple[int]:
        return (self._layer,)

    @property
    def _layer(self) -> int:
        if isinstance(self.layer, Budget):
            raise ValueError(
                f"VTW must know its layer before work starts, got layer={self.layer}: use "
                "plan(entered, depth)"
            )
        return self.layer

    def plan(self, entered: int, depth: int) -> "VTW":
        if not isinstance(self.layer, Budget):
            return self
        layers = round(self.layer.target(entered) * depth / entered)
        return replace(self, layer=min(layers, depth - 1) - 1)

    def left(self, entered: int) -> list[int]:
        return [0]

    def step(self, entered: int, depth: int) -> float:
        return entered / depth

    def reduce(self, view: PrefillView) -> Reduction:
        return view.top(torch.zeros_like(view.sizes), 0)
