"""The control of merging: every region of the image becomes its mean, whatever is in it."""

from dataclasses import dataclass
from typing import final

import torch

from mustdrop.functional import even_regions
from mustdrop.reduction import Reduction
from mustdrop.strategy import Count, VisionStrategy, VisionView, require_fields


@final
@dataclass(frozen=True)
class AveragePool(VisionStrategy):
    """Average the tokens of each of ``keep`` even regions, behind the projector.

    Source: ours; what any merging has to beat. With as many tokens as patches it changes nothing.

    Attributes:
        keep: Tokens kept per image; more than there are patches keeps all.
    """

    keep: Count
    places = ("projected",)

    def __post_init__(self) -> None:
        require_fields(self)

    def reduce(self, view: VisionView) -> Reduction:
        (height, width), cells = view.grid, view.patch_index
        if len(cells) != height * width:
            raise ValueError(
                f"AveragePool pools a full grid of {height} x {width}, got {len(cells)} tokens; "
                "act before any other reduction"
            )
        if self.keep == 0:
            return Reduction(cells[:0])
        keep = min(self.keep, len(cells))
        regions = even_regions(height, width, keep).flatten()
        sizes = regions.bincount(minlength=keep)
        order = regions.argsort(stable=True)  # cells by region
        middle = order[sizes.cumsum(0) - sizes + (sizes - 1) // 2].to(cells.device)
        if keep == len(cells):
            return Reduction(middle)
        sizes, regions = sizes.to(view.sizes), regions.to(cells.device)
        return Reduction.averages(middle, regions, torch.ones_like(view.sizes), sizes)
