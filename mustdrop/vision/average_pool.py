"""AveragePool: replace each region of an even grid by the mean of its vision tokens (a control)."""

from dataclasses import dataclass
from typing import final

import torch

from mustdrop.budget import keep_for
from mustdrop.fixed_counts import KeepPerImage
from mustdrop.functional import even_regions
from mustdrop.reduction import Decision, PendingReduction, Reduction, settled
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
        return settled([self.begin(view)])[0]

    def begin(self, view: VisionView) -> Decision:
        (height, width), cells = view.grid, view.cells
        keep = min(keep_for(self.keep, height * width), height * width)
        if keep == 0:
            return Reduction(cells[:0])
        regions = even_regions(height, width, keep).flatten()
        regions = regions.to(cells.device, non_blocking=True)[cells]
        present = torch.zeros(keep, dtype=torch.bool, device=cells.device)
        present = present.index_fill_(0, regions, True)
        number = (present.cumsum(0) - 1)[regions]  # the model's packing may cut regions away

        def pooled(numbers: list[int]) -> Reduction:
            ones = torch.ones_like(number)
            sizes = number.new_zeros(numbers[0]).index_add_(0, number, ones)
            order = number.argsort(stable=True)  # tokens by region
            middle = order[sizes.cumsum(0) - sizes + (sizes - 1) // 2]
            if len(middle) == len(cells):  # no region has two tokens
                return Reduction(torch.arange(len(cells), device=cells.device), ascending=True)
            return Reduction.averages(
                middle, number, torch.ones_like(view.sizes), sizes.to(view.sizes)
            )

        whole = len(cells) == height * width
        return pooled([keep]) if whole else PendingReduction(present.sum()[None], pooled)
