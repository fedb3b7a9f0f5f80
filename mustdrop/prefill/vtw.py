"""VTW, visual token withdrawal: drop all vision tokens at once after one decoder layer."""

from dataclasses import dataclass
from typing import final

import torch

from mustdrop.reduction import Reduction
from mustdrop.strategy import PrefillStrategy, PrefillView, require_fields


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
        layer: Last layer that sees vision tokens, K - 1; -1: no layer does.
    """

    layer: int

    def __post_init__(self) -> None:
        require_fields(self)

    @property
    def layers(self) -> tuple[int]:
        return (self.layer,)

    def reduce(self, view: PrefillView) -> Reduction:
        return view.top(torch.zeros_like(view.sizes), 0)
