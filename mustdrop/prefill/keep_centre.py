"""Keep the centre: the control for pictures whose subject stands in the middle."""

from dataclasses import dataclass
from typing import final

import torch

from mustdrop.reduction import Reduction
from mustdrop.strategy import Count, PrefillStrategy, PrefillView, require_fields


@final
@dataclass(frozen=True)
class KeepCentre(PrefillStrategy):
    """Keep the vision tokens nearest to the centre of their image's grid.

    Ties go to the earlier token. Slots off the grid (newlines) stay last; what an image cannot
    fill of its share goes to the next nearest of all.

    Source: control, ours.

    Attributes:
        keep: Vision tokens kept per prompt, shared evenly among its images.
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
        keep = min(self.keep, len(view))
        rows, columns = view.grid
        image, row, column = view.patch_coordinates.T
        # twice the offset from the centre: whole numbers, so that equal distances are equal
        far = (2 * row - rows + 1).square() + (2 * column - columns + 1).square()
        far = far.masked_fill(image < 0, rows**2 + columns**2)
        nearest = far.argsort(stable=True)
        chosen = torch.zeros_like(view.protected)
        for number in range(view.image_count):
            share = keep * (number + 1) // view.image_count - keep * number // view.image_count
            own = (image == number)[nearest]
            chosen[nearest] |= own & (own.cumsum(0) <= share)
        return view.top(torch.where(chosen, 1.0, -far.float()), keep)
