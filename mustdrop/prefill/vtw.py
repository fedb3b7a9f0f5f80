"""VTW: visual token withdrawal, all vision tokens leave at once."""

from dataclasses import dataclass
from typing import final

import torch

from mustdrop.reduction import Reduction
from mustdrop.strategy import PrefillStrategy, PrefillView, require_fields


@final
@dataclass(frozen=True)
class VTW(PrefillStrategy):
    """Keep no vision token after layer K - 1; before it nothing leaves.

    Key tokens stay, where another stage protects some. K is the first from the fifth layer on with
    a divergence of at most eta, see :mod:`mustdrop.calibration.vtw`.

    Source: VTW, arXiv:2405.05803; lzhxmu/VTW a3d8cfc3, VTW.py:310-314 (positions kept).
    Differs from the authors' code: vision tokens are found, not at constant places; any batch.

    Attributes:
        layer: K - 1, the last layer that sees vision tokens; -1: none does.
    """

    layer: int

    def __post_init__(self) -> None:
        require_fields(self)

    @property
    def layers(self) -> tuple[int]:
        return (self.layer,)

    def reduce(self, view: PrefillView) -> Reduction:
        return view.top(torch.zeros_like(view.sizes), 0)
