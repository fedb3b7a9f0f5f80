"""UniformGrid: keep evenly spaced patches (a control that reads neither image nor question)."""

from dataclasses import dataclass
from typing import final

import torch

from mustdrop.fixed_counts import KeepPerPrompt
from mustdrop.functional import even_cells
from mustdrop.reduction import Reduction
from mustdrop.strategy import Keep, PrefillView, require_fields


@final
@dataclass(frozen=True)
class UniformGrid(KeepPerPrompt):
    """Keep ``keep`` vision tokens spread evenly over the images and over each image's grid.

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
        return spread(view, self.kept(view))


def spread(view: PrefillView, keep: int) -> Reduction:
    """Keep ``keep`` vision tokens of a prompt, spread evenly over its images and their grids."""
    keep = min(keep, len(view))
    rows, columns = view.grid
    images = view.image_count
    wanted = torch.zeros(images, rows * columns)
    for image in range(images):
        share = keep * (image + 1) // images - keep * image // images
        wanted[image, even_cells(rows, columns, min(share, rows * columns))] = 1.0
    image, row, column = view.patch_coordinates.T
    score = wanted.to(view.patch_coordinates.device)[image, row * columns + column]
    # Off-grid slots (newlines) rank last. Where a wanted cell is gone already, the earliest other
    # cell replaces it, because ties go to the earlier token.
    return view.top(score.masked_fill(image < 0, -1.0), keep)
