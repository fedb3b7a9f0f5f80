"""AveragePool: replace each region of an even grid by the mean of its vision tokens (a control)."""

from dataclasses import dataclass
from typing import final

import torch

from mustdrop.fixed_counts import KeepPerImage
from mustdrop.functional import even_regions
from mustdrop.reduction import Reduction
from mustdrop.strategy import Keep, VisionView, require_fields


@final
@dataclass(frozen=True)
class AveragePool(KeepPerImage):
    """Replace each of ``keep`` even regions of an image by the mean of its vision tokens.

    It acts behind the projector. With as many tokens as patches it changes nothing.

    Source: control, ours; every merging method should beat it.

    Attributes:
        keep: Number of tokens kept per image; a number above the patches keeps all.
    """

    keep: Keep
    places = ("projected",)

    def __post_init__(self) -> None:
        require_fields(self)

    def reduce(self, view: VisionView) -> Reduction:
        (height, width), cells = view.grid, view.patch_index
        if len(cells) != height * width:
            raise ValueError(
                f"AveragePool needs a full grid of {height} x {width}, got {len(cells)} tokens; "
                "it must act before any other reduction"
            )
        keep = self.kept(view)
        if keep == 0:
            return Reduction(cells[:0])
        regions = even_regions(height, width, keep).flatten()
        sizes = regions.bincount(minlength=keep)
        order = regions.argsort(stable=True)  # cells by region
        middle = order[sizes.cumsum(0) - sizes + (sizes - 1) // 2].to(cells.device)
        if keep == len(cells):
            return Reduction(middle)
        sizes, regions = sizes.to(view.sizes), regions.to(cells.device)
        return Reduction.averages(middle, regions, torch.ones_like(view.sizes), sizes)
