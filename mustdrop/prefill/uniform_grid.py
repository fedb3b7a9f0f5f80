"""UniformGrid: keep evenly spaced patches (a control that reads neither image nor question)."""

from dataclasses import dataclass
from typing import final

import torch

from mustdrop.functional import even_cells
from mustdrop.reduction import Reduction
from mustdrop.strategy import Count, PrefillStrategy, PrefillView, require_fields


@final
@dataclass(frozen=True)
class UniformGrid(PrefillStrategy):
    """Keep ``keep`` vision tokens spread evenly over the images and over each image's grid.

    Source: control, ours.

    Attributes:
        keep: Number of vision tokens kept per prompt, shared evenly among its images.
        layer: Layer after which tokens are dropped; -1: before the language model.
    """

    keep: Count
    layer: int = -1

    def __post_init__(self) -> None:
        require_fields(self)

    @property
    def layers(self) -> tuple[int]:
        return (self.layer,)

    def reduce(self, view: PrefillView) -> Reduction:
        return spread(view, self.keep)


def spread(view: PrefillView, keep: int) -> Reduction:
    """Keep ``keep`` vision tokens of a prompt, spread evenly over its images and their grids."""
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
    columns = torch.tensor([columns for _, columns in view.grids] or [1])
    cell = torch.tensor(starts).to(image)[image] + row * columns.to(image)[image] + column
    score = torch.cat([*wanted, torch.zeros(1)]).to(coordinates.device)[cell]
    # Off-grid slots (newlines) rank last. Where a wanted cell is gone already, the earliest other
    # cell replaces it, because ties go to the earlier token.
    return view.top(score.masked_fill(image < 0, -1.0), keep)
