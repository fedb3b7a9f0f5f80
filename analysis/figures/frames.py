"""Survival of patches by frame and by position in the frame: bias of a method over traced videos.

Shows the share of patches that a token carries: by frame and layer, by frame at the last layer, and
by position at the last layer, averaged over the frames. Intervals are over samples. Slots that show
no patch, such as a frame's [CLS], are not counted. Knows nothing about models.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from analysis.figures.style import DOUBLE, HEAT, look, sheet, styled
from analysis.figures.survival import COLUMNS, ROWS, marginal, shade_bar
from analysis.figures.traced import Traced, alive
from analysis.records.frames import frame_names, frames_of_videos
from mustdrop.runs.trace import Trace


@dataclass(frozen=True, eq=False)
class FrameShares:
    """Shares of patches alive in the first video of each sample.

    Attributes:
        by_frame: Share of the patches of each frame alive at the input of each layer.
        by_position: Share of the frames whose patch at a position is alive at the input of the last
            layer. Frames of several sizes are shown on the smallest grid, with means where several
            patches share a position.
        names: Names of the frames.
    """

    by_frame: Float[np.ndarray, "samples layers frames"]
    by_position: Float[np.ndarray, "samples rows columns"]
    names: Sequence[str]


def frame_shares(traces: Sequence[Trace], shown: int | None = None) -> FrameShares:
    """Count the patches alive in the first video of each traced prompt.

    Args:
        traces: Trace of each prompt; a ledger alone is enough.
        shown: Number of frames of a file that the model was given; None: not known.

    Raises:
        ValueError: If there is no trace, a prompt has no video, or the numbers of frames or layers
            differ.
    """
    if not traces:
        raise ValueError("no traced sample to count")
    by_frame, last = [], []
    for number, trace in enumerate(traces):
        videos = frames_of_videos(trace.ledger)
        if not videos:
            raise ValueError(f"trace {number} shows no video")
        masks = [
            np.stack([alive(trace, layer, frame) for frame in videos[0]])
            for layer in range(trace.ledger.depth)
        ]
        by_frame.append(np.stack([mask.mean((1, 2)) for mask in masks]))
        last.append(masks[-1].mean(0))
    if len({shares.shape for shares in by_frame}) > 1:
        shapes = sorted({shares.shape for shares in by_frame})
        raise ValueError(f"numbers of layers and frames differ between samples: {shapes}")
    grid = min(map(len, last)), min(shares.shape[1] for shares in last)
    return FrameShares(
        np.stack(by_frame),
        np.stack([resampled(shares, grid) for shares in last]),
        frame_names(by_frame[0].shape[1], shown),
    )


def resampled(
    shares: Float[np.ndarray, "_ _"], grid: tuple[int, int]
) -> Float[np.ndarray, "rows columns"]:
    """Mean of the cells whose centre lies in each cell of a grid that is not larger."""
    for axis, size in enumerate(grid):
        count = shares.shape[axis]
        target = ((np.arange(count) + 0.5) * size / count).astype(int)
        parts = [shares.compress(target == index, axis).mean(axis) for index in range(size)]
        shares = np.stack(parts, axis)
    return shares


@styled
def draw(arms: Sequence[Sequence[Traced]]) -> Figure:
    """Draw one row per arm: by frame and layer, by frame, by position, by row and by column.

    Args:
        arms: Traced samples of each run, one or more, each with a video.

    Raises:
        ValueError: See :func:`frame_shares`.
    """
    counted = [
        frame_shares(
            [sample.trace for sample in samples], samples[0].cell["config"]["model"].get("frames")
        )
        for samples in arms
    ]
    figure = sheet(DOUBLE, len(arms) * 1.2 + 0.75)
    axes = figure.subplots(len(arms), 5, squeeze=False, width_ratios=[1.25, 1.25, 1.0, 0.85, 1.0])
    norm = PowerNorm(0.5, 0.0, 1.0)
    for row, samples, shares in zip(axes, arms, counted, strict=True):
        colour = look(samples[0].cell["method"])["color"]
        ends = shares.names[0], shares.names[-1]
        by_layer = shares.by_frame.mean(0)
        row[0].imshow(by_layer, cmap=HEAT, norm=norm, interpolation="nearest", aspect="auto")
        row[0].set(xticks=[0, len(shares.names) - 1], xticklabels=ends)
        row[0].yaxis.set_major_locator(MaxNLocator(4, integer=True))
        row[0].set_ylabel(f"{samples[0].arm}\nn = {len(samples)}\n\nlayer")
        marginal(row[1], shares.by_frame[:, -1], colour, ends)
        row[2].imshow(shares.by_position.mean(0), cmap=HEAT, norm=norm, interpolation="nearest")
        row[2].set(xticks=[], yticks=[])
        row[2].spines[:].set_visible(False)
        marginal(row[3], shares.by_position.mean(2), colour, ROWS, upright=True)
        marginal(row[4], shares.by_position.mean(1), colour, COLUMNS)
    highest = max(
        shares.mean(axes_of_mean).max()
        for shared in counted
        for shares, axes_of_mean in (
            (shared.by_frame[:, -1], 0), (shared.by_position, (0, 1)), (shared.by_position, (0, 2))
        )
    )  # fmt: skip
    top = max(105 * highest, 1.0)
    for row in axes:
        row[3].set_xlim(0, top)
        for ax in (row[1], row[4]):
            ax.set_ylim(0, top)
    titles = ("by frame and layer", "by frame, %", "by position", "by row, %", "by column, %")
    for index, (ax, title) in enumerate(zip(axes[0], titles, strict=True)):
        ax.set_title(title if index == 0 else f"{title}\nlast layer")
    for index in (0, 1):
        axes[-1, index].set_xlabel("frame")
    shade_bar(figure, axes[:, [0, 2]], "patches alive, % (square-root scale)")
    for ax in axes[:, 2]:
        ax.set_anchor("N")  # the scale of shares moved it down
    return figure
