"""Frames of the videos of one prompt, and the part of its tokens that each video keeps.

Knows nothing about models.
"""

from typing import NamedTuple

from mustdrop.budget import Budget, part_of
from mustdrop.strategy import PrefillView


class VideoShare(NamedTuple):
    """One video of a prompt.

    Attributes:
        frames: Number of its frames; where a model merges frames in time, of the merged ones.
        rows: Number of rows of a frame's grid.
        columns: Number of columns of a frame's grid.
        keep: Number of tokens that the video keeps.
    """

    frames: int
    rows: int
    columns: int
    keep: int


def video_shares(view: PrefillView, keep: int) -> list[VideoShare]:
    """Videos of a prompt, which share ``keep`` tokens in proportion to their cells."""
    shares, first = [], 0
    total = sum(rows * columns for rows, columns in view.grids)
    for images, _ in view.visual_inputs:
        rows, columns = view.grids[images.start]  # all frames of a video have one grid
        end = first + len(images) * rows * columns
        part = part_of(Budget(tokens=keep), first, end, total)
        shares.append(VideoShare(len(images), rows, columns, part))
        first = end
    return shares


def even_frames(frames: int, count: int) -> list[int]:
    """Indices of ``count`` of ``frames`` frames, evenly spaced from the first to the last."""
    return [0] if count == 1 else [index * (frames - 1) // (count - 1) for index in range(count)]
