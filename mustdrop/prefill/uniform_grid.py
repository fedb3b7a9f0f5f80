"""UniformGrid: keep evenly spaced patches (a control that reads neither image nor question)."""

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from mustdrop.fixed_counts import TopK
from mustdrop.functional import even_cells
from mustdrop.strategy import PrefillView


@final
@dataclass(frozen=True)
class UniformGrid(TopK):
    """Keep ``keep`` vision tokens spread evenly over the images and over each image's grid.

    Source: control, ours.

    Attributes:
        keep: Number of vision tokens kept per prompt, shared evenly among its images.
        layer: Layer after which tokens are dropped; -1: before the language model.
    """

    def score(self, view: PrefillView) -> Float[Tensor, " vision"]:
        return evenness(view, self.kept(view))


def evenness(view: PrefillView, keep: int) -> Float[Tensor, " vision"]:
    """Score that is highest at ``keep`` cells, spread evenly over the images and their grids.

    Off-grid slots (newlines) rank last. Where a wanted cell is gone already, the earliest other
    cell replaces it, because ties go to the earlier token.
    """
    keep = min(keep, len(view))
    images = len(view.grids)
    wanted, starts = [], [0]
    for image, (rows, columns) in enumerate(view.grids):
        share = keep * (image + 1) // images - keep * image // images
        of_image = torch.zeros(rows * columns)
        of_image[even_cells(rows, columns, min(share, rows * columns))] = 1.0
        wanted.append(of_image)
        starts.append(starts[-1] + rows * columns)
    coordinates = view.cell_coordinates
    image, row, column = coordinates.T
    columns = [columns for _, columns in view.grids] or [1]
    first, width = (
        torch.tensor(numbers).to(image, non_blocking=True)[image] for numbers in (starts, columns)
    )
    cell = first + row * width + column
    score = torch.cat([*wanted, torch.zeros(1)]).to(coordinates.device, non_blocking=True)[cell]
    return score.masked_fill(image < 0, -1.0)
