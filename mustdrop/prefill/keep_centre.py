"""KeepCentre: keep the central patches (a control for images with a subject in the middle)."""

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from mustdrop.fixed_counts import TopK
from mustdrop.strategy import PrefillView

FARTHEST = 2**31  # distance of a slot off the grid


@final
@dataclass(frozen=True)
class KeepCentre(TopK):
    """Keep the vision tokens nearest to the centre of their image's grid.

    Ties go to the earlier token. Slots off the grid (newlines) are kept last. If an image has fewer
    tokens than its share, the next nearest tokens of all images fill up.

    Source: control, ours.

    Attributes:
        keep: Number of vision tokens kept per prompt, shared evenly among its images.
        layer: Layer after which tokens are dropped; -1: before the language model.
    """

    def score(self, view: PrefillView) -> Float[Tensor, " vision"]:
        keep = self.kept(view)
        image, row, column = view.cell_coordinates.T
        grids = torch.tensor([*view.grids, (1, 1)])  # the last: off the grid
        grids = grids.to(image.device, non_blocking=True)
        rows, columns = grids[image].T
        # Twice the offset from the centre is a whole number, so that equal distances compare equal.
        far = (2 * row - rows + 1).square() + (2 * column - columns + 1).square()
        far = far.masked_fill(image < 0, FARTHEST)
        nearest = far.argsort(stable=True)
        chosen = torch.zeros_like(view.protected)
        images = len(view.grids)
        for index in range(images):
            share = keep * (index + 1) // images - keep * index // images
            of_image = (image == index)[nearest]
            chosen[nearest] |= of_image & (of_image.cumsum(0) <= share)
        return torch.where(chosen, 1.0, -far.float())
