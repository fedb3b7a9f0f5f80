"""Put the crops of a picture together: the fates of their patches, and their pictures.

A model may cut off the rows or columns of patches that show only padding; they are cut off here,
too. Knows nothing about models.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import final

import numpy as np
from einops import rearrange
from PIL import Image

from analysis.records.fates import to_numpy
from analysis.records.patches import NO_INDEX, PatchFates, patch_fates
from mustdrop.ledger import TokenLedger
from mustdrop.runs.trace import Trace


@final
@dataclass(frozen=True, eq=False)
class CropMosaic:
    """The crops of one picture, where they lie in it.

    Attributes:
        images: Indices of the crops among the encoded images of the prompt, row after row.
        shape: Numbers of rows and columns of crops.
        grid: Numbers of rows and columns of patches of one crop.
        rows: Rows of patches that some vision slot shows.
        columns: Columns of patches that some vision slot shows.
    """

    images: range
    shape: tuple[int, int]
    grid: tuple[int, int]
    rows: slice
    columns: slice

    def joined(self, values: Sequence[np.ndarray]) -> np.ndarray:
        """Join the values of the patches of all crops; the result has rows and columns."""
        whole = rearrange(
            np.stack(values), "(R C) (r c) -> (R r) (C c)", R=self.shape[0], r=self.grid[0]
        )
        return whole[self.rows, self.columns]

    def fates(self, trace: Trace) -> PatchFates:
        """Fates of the patches of all crops, as those of one image.

        Raises:
            ValueError: If the ledger has no prefill.
        """
        parts, tokens = [], 0
        for image in self.images:
            part = patch_fates(trace, image)
            token = np.where(part.token == NO_INDEX, NO_INDEX, part.token + tokens)
            parts.append(replace(part, token=token))
            tokens += part.tokens
        planes = {
            field.name: self.joined([getattr(part, field.name) for part in parts])
            for field in fields(PatchFates)
            if isinstance(getattr(parts[0], field.name), np.ndarray)
        }
        grid = planes["left"].shape
        planes = {name: plane.ravel() for name, plane in planes.items()}
        return PatchFates(grid=grid, depth=parts[0].depth, tokens=tokens, **planes)

    def picture(self, trace: Trace) -> Image.Image:
        """Picture that the crops show, without the padding that was cut off.

        Raises:
            ValueError: If a crop has no picture in the trace.
        """
        crops = [np.asarray(trace.picture(image)) for image in self.images]
        whole = rearrange(np.stack(crops), "(R C) h w c -> (R h) (C w) c", R=self.shape[0])
        box = [
            slice(round(part.start * side), round(part.stop * side))
            for part, side in zip(
                (self.rows, self.columns), np.divide(crops[0].shape[:2], self.grid), strict=True
            )
        ]
        return Image.fromarray(whole[box[0], box[1]])


def crop_mosaics(ledger: TokenLedger) -> list[CropMosaic]:
    """Mosaics of the pictures of a prompt that have crops, in their order."""
    mosaics = []
    for first, *shape in ledger.mosaics:
        images = range(first, first + shape[0] * shape[1])
        grid = ledger.grids[first]
        size = grid[0] * grid[1]
        start = sum(rows * columns for rows, columns in ledger.grids[:first])
        cells = start + np.arange(len(images) * size).reshape(len(images), size)
        everything = CropMosaic(images, (shape[0], shape[1]), grid, slice(None), slice(None))
        shown = everything.joined(list(np.isin(cells, to_numpy(ledger.cells))))
        rows, columns = (np.flatnonzero(shown.any(axis)) for axis in (1, 0))
        mosaics.append(replace(everything, rows=_span(rows), columns=_span(columns)))
    return mosaics


def _span(indices: np.ndarray) -> slice:
    """Slice from the first to the last index."""
    return slice(int(indices[0]), int(indices[-1]) + 1)
