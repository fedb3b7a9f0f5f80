"""UniformGrid: keep evenly spaced patches (a control that reads neither image nor question)."""

from collections.abc import Sequence
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
    keep, images = min(keep, len(view)), len(view.grids)
    counts = [keep * (image + 1) // images - keep * image // images for image in range(images)]
    return even_score(view, counts)


def even_score(view: PrefillView, counts: Sequence[int]) -> Float[Tensor, " vision"]:
    """Score that is highest at so many cells of each image, spread evenly over its grid.

    Off-grid slots rank last.
    """
    wanted = [torch.zeros(0)]
    for (rows, columns), count in zip(view.grids, counts, strict=True):
        of_image = torch.zeros(rows * columns)
        of_image[even_cells(rows, columns, min(count, rows * columns))] = 1.0
        wanted.append(of_image)
    return view.of_cells(torch.cat(wanted), off_grid=-1.0)
