"""KeepCentre: keep the central patches (a control for images with a subject in the middle)."""

from dataclasses import dataclass
from typing import final

import torch

from mustdrop.fixed_counts import KeepPerPrompt
from mustdrop.reduction import Reduction
from mustdrop.strategy import Keep, PrefillView, require_fields


@final
@dataclass(frozen=True)
class KeepCentre(KeepPerPrompt):
    """Keep the vision tokens nearest to the centre of their image's grid.

    Ties go to the earlier token. Slots off the grid (newlines) are kept last. If an image has fewer
    tokens than its share, the next nearest tokens of all images fill up.

    Source: control, ours.

    Attributes:
        keep: Number of vision tokens kept per prompt, shared evenly among its images.
        layer: Layer after which tokens are dropped; -1: before the language model.
    """

    keep: Keep
    layer: int = -1

    def __post_init__(self) -> None:
        require_fields(self)

    def reduce(self, view: PrefillView) -> Reduction:
        keep = self.kept(view)
        rows, columns = view.grid
        image, row, column = view.patch_coordinates.T
        # Twice the offset from the centre is a whole number, so that equal distances compare equal.
        far = (2 * row - rows + 1).square() + (2 * column - columns + 1).square()
        far = far.masked_fill(image < 0, rows**2 + columns**2)
        nearest = far.argsort(stable=True)
        chosen = torch.zeros_like(view.protected)
        for index in range(view.image_count):
            share = keep * (index + 1) // view.image_count - keep * index // view.image_count
            of_image = (image == index)[nearest]
            chosen[nearest] |= of_image & (of_image.cumsum(0) <= share)
        return view.top(torch.where(chosen, 1.0, -far.float()), keep)
