"""The images and videos of each prompt, and the cell that each of its vision slots shows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from mustdrop.ledger import OFF_GRID
from mustdrop.models import VisualInput

NO_SLOT = -1  # stands for the id of a token that is not a vision token


@dataclass(frozen=True, eq=False)
class PromptVision:
    """Visual inputs of one prompt; everything is on the host.

    Attributes:
        inputs: Images and videos in the order of their slots.
        grids: Cells of each encoded image (crop, frame) as (rows, columns), input after input.
        encoded: Index of each encoded image among all images that the encoders get for the batch.
        cells: Flat cell that each vision slot shows, counted through ``grids``, or ``OFF_GRID``.
    """

    inputs: Sequence[VisualInput]
    grids: Sequence[tuple[int, int]]
    encoded: Sequence[int]
    cells: Int[Tensor, " slots"]

    @property
    def starts(self) -> list[int]:
        """Flat cell at which each encoded image begins; at the end, the number of all cells."""
        starts = [0]
        for rows, columns in self.grids:
            starts.append(starts[-1] + rows * columns)
        return starts

    @cached_property
    def off_grid(self) -> int:
        """Number of vision slots that show no cell."""
        return int((self.cells == OFF_GRID).sum())

    @property
    def pixels(self) -> list[Tensor]:
        """Pixels of each encoded image."""
        return [image for visual in self.inputs for image in visual.pixels]

    @cached_property
    def ranges(self) -> list[tuple[range, bool]]:
        """Encoded images of each visual input, and whether they are frames of a video."""
        ranges, first = [], 0
        for visual in self.inputs:
            ranges.append((range(first, first + len(visual.grids)), visual.is_video))
            first += len(visual.grids)
        return ranges

    @property
    def spans(self) -> list[tuple[int, int, int]]:
        """Vision slots that show earlier images; these and each image; all images."""
        starts = torch.tensor(self.starts)
        cells = self.cells[host_indices(self.cells != OFF_GRID)].sort().values
        ends = torch.searchsorted(cells, starts).tolist()
        return [(first, end, ends[-1]) for first, end in pairwise(ends)]

    @cached_property
    def slots(self) -> list[Int[Tensor, " _"]]:
        """Vision slot of each cell of each image; ``OFF_GRID`` if the model's packing cuts it."""
        return slots_of(self.cells, self.grids)

    @property
    def tiles(self) -> list[int]:
        """Number of images that the encoder gets for each grid; empty: one for each."""
        if not any(visual.tiles for visual in self.inputs):
            return []
        ones = [visual.tiles or [1] * len(visual.grids) for visual in self.inputs]
        return [count for tiles in ones for count in tiles]

    @property
    def mosaics(self) -> list[tuple[int, int, int]]:
        """(first encoded image, rows, columns) of the crops of each visual input that has them."""
        return [
            (images.start + 1, *visual.crops)
            for visual, (images, _) in zip(self.inputs, self.ranges, strict=True)
            if visual.crops is not None
        ]

    @property
    def videos(self) -> list[tuple[int, int]]:
        """(first encoded image, number of frames) of each video."""
        return [(frames.start, len(frames)) for frames, is_video in self.ranges if is_video]


def assign(
    slots: Sequence[Int[Tensor, " seq"]], visual: Mapping[int, Sequence[VisualInput]]
) -> list[PromptVision]:
    """Assign the visual inputs of a batch to the prompts whose vision slots they fill.

    Each prompt takes the next inputs of a kind until its slots of that kind are full. The slots of
    an input may stand apart, with text between the rows or frames.

    Args:
        slots: Token id of each vision slot of each prompt, ``NO_SLOT`` elsewhere; on the host.
        visual: Token id -> visual inputs in the order of the prompts; ids in the order in which
            the model encodes them.

    Raises:
        ValueError: If slots are left without an input, or inputs without slots.
    """
    waiting: dict[int, list[tuple[VisualInput, int]]] = {}
    count = 0
    for token, inputs in visual.items():
        waiting[token] = []
        for item in inputs:
            waiting[token].append((item, count))
            count += len(item.grids)
    prompts = [_take(number, row, waiting) for number, row in enumerate(slots)]
    for token, left in waiting.items():
        if left:
            raise ValueError(
                f"{len(left)} of {len(visual[token])} images have no vision slots in the prompts"
            )
    return prompts


def slots_of(
    cells: Int[Tensor, " slots"], grids: Sequence[tuple[int, int]]
) -> list[Int[Tensor, " _"]]:
    """Slot of each cell of each image; ``OFF_GRID`` where no slot shows the cell.

    Args:
        cells: Flat cell that each slot shows, counted through ``grids``, or ``OFF_GRID``.
        grids: Cells of each image as (rows, columns).
    """
    sizes = [rows * columns for rows, columns in grids]
    total = sum(sizes)
    slot = torch.full((total + 1,), OFF_GRID, device=cells.device)  # the last one is for newlines
    where = torch.where(cells == OFF_GRID, total, cells)
    slot[where] = torch.arange(len(cells), device=cells.device)
    return list(slot[:-1].split(sizes)) if sizes else []


def host_indices(mask: Bool[Tensor, " n"]) -> Int[Tensor, " true"]:
    """Indices where a mask on the host is true; by numpy, which never waits for a device."""
    return torch.from_numpy(np.flatnonzero(mask.numpy()))


def _take(
    number: int, row: Int[Tensor, " seq"], waiting: Mapping[int, list[tuple[VisualInput, int]]]
) -> PromptVision:
    """Take the visual inputs of one prompt from those that wait."""
    taken: list[tuple[Tensor, VisualInput, int]] = []
    for token, queue in waiting.items():
        where = host_indices(row == token)
        start = 0
        while start < len(where):
            if not queue:
                raise ValueError(
                    f"prompt {number} has {len(where)} vision slots, but its images fill {start}"
                )
            visual, first = queue.pop(0)
            part = where[start : start + len(visual.cells)]
            if len(part) < len(visual.cells):
                raise ValueError(
                    f"prompt {number} has {len(part)} vision slots for an image that fills "
                    f"{len(visual.cells)}"
                )
            taken.append((part, visual, first))
            start += len(part)
    taken.sort(key=lambda item: int(item[0][0]))
    grids: list[tuple[int, int]] = []
    encoded: list[int] = []
    cells, offset = [], 0
    for _, visual, first in taken:
        cells.append(torch.where(visual.cells == OFF_GRID, OFF_GRID, visual.cells + offset))
        grids += visual.grids
        encoded += range(first, first + len(visual.grids))
        offset += sum(rows * columns for rows, columns in visual.grids)
    empty = row.new_zeros(0)
    order = torch.cat([empty, *(part for part, _, _ in taken)]).argsort()
    return PromptVision(
        [visual for _, visual, _ in taken], grids, encoded, torch.cat([empty, *cells])[order]
    )


def coordinates(grids: Sequence[tuple[int, int]], cells: Int[Tensor, " n"]) -> Int[Tensor, "n 3"]:
    """(image, row, column) of flat cells that are counted through grids; -1 off the grid."""
    numbers = torch.tensor([(rows * columns, columns) for rows, columns in grids] or [(1, 1)])
    sizes, widths = numbers.to(cells.device, non_blocking=True).T
    ends = sizes.cumsum(0)
    image = torch.searchsorted(ends, cells.clamp(min=0), right=True).clamp(max=len(sizes) - 1)
    local = cells - (ends - sizes)[image]
    position = torch.stack([image, local // widths[image], local % widths[image]], 1)
    return position.masked_fill((cells == OFF_GRID)[:, None], -1)
