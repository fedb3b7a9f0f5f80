"""AveragePool: replace each region of an even grid by the mean of its vision tokens (a control)."""

from dataclasses import dataclass
from typing import final

import torch

from mustdrop.budget import keep_for
from mustdrop.fixed_counts import KeepPerImage
from mustdrop.functional import even_regions
from mustdrop.reduction import Reduction
from mustdrop.strategy import Keep, VisionView, require_fields


@final
@dataclass(frozen=True)
class AveragePool(KeepPerImage):
    """Replace each of ``keep`` even regions of an image by the mean of its vision tokens.

    It acts behind the projector. With as many regions as tokens it changes nothing. A region whose
    cells the model's packing cut away has no token.

    Source: control, ours; every merging method should beat it.

    Attributes:
        keep: Number of tokens kept per image; a number above the cells keeps all.
    """

    keep: Keep
    places = ("projected",)

    def __post_init__(self) -> None:
        require_fields(self)

    def reduce(self, view: VisionView) -> Reduction:
        (height, width), cells = view.grid, view.cells
        keep = min(keep_for(self.keep, height * width), height * width)
        if keep == 0:
            return Reduction(cells[:0])
        regions = even_regions(height, width, keep).flatten()
        if len(cells) < len(regions):  # the model's packing cut cells away, and perhaps regions
            _, regions = regions[cells.cpu()].unique(return_inverse=True)
        sizes = regions.bincount()
        order = regions.argsort(stable=True)  # tokens by region
        middle = order[sizes.cumsum(0) - sizes + (sizes - 1) // 2].to(cells.device)
        if len(middle) == len(cells):
            return Reduction(middle)
        sizes, regions = sizes.to(view.sizes), regions.to(cells.device)
        return Reduction.averages(middle, regions, torch.ones_like(view.sizes), sizes)
