"""Labels at the ends of lines, moved apart so that they do not overlap.

Knows nothing about methods.
"""

from collections.abc import Sequence

from matplotlib.axes import Axes

from analysis.figures.style import SMALL

End = tuple[float, float, str, str]  # x, y, name, colour


def label_ends(ax: Axes, ends: Sequence[End], size: float = SMALL) -> None:
    """Label lines right of the panel, each as close to the height of its last point as possible.

    Args:
        ax: Axes with their final limits.
        ends: Last point, name and colour of each line.
        size: Font size in points.
    """
    bottom, top = ax.get_ylim()
    span = top - bottom
    figure = ax.get_figure()
    assert figure is not None
    inches = ax.get_position().height * figure.bbox.height / figure.dpi
    gap = 1.25 * size / 72 / inches
    wanted = sorted(((y - bottom) / span, x, label, colour) for x, y, label, colour in ends)
    heights = spread([height for height, *_ in wanted], gap)
    if heights and heights[-1] - heights[0] < 1:  # keep all labels inside the panel if they fit
        shift = min(max(0.0, -heights[0]), 1.0) - max(0.0, heights[-1] - 1)
        heights = [height + shift for height in heights]
    for (height, x, label, colour), moved in zip(wanted, heights, strict=True):
        ax.annotate(
            label, (x, bottom + height * span), (1.04, moved), "data", "axes fraction",
            color=colour, va="center", size=size, annotation_clip=False,
            arrowprops={
                "arrowstyle": "-", "color": colour, "lw": 0.5, "alpha": 0.5, "shrinkB": 3,
                "relpos": (0, 0.5),
            },
            zorder=1,
        )  # fmt: skip


def spread(heights: Sequence[float], gap: float) -> list[float]:
    """Move ascending heights as little as possible so that they are at least ``gap`` apart."""
    blocks: list[list[float]] = []
    for height in heights:
        blocks.append([height])
        while len(blocks) > 1 and _bottom(blocks[-1], gap) < _top(blocks[-2], gap) + gap:
            blocks[-2:] = [blocks[-2] + blocks[-1]]
    return [_bottom(block, gap) + gap * index for block in blocks for index in range(len(block))]


def _bottom(block: Sequence[float], gap: float) -> float:
    return sum(block) / len(block) - gap * (len(block) - 1) / 2


def _top(block: Sequence[float], gap: float) -> float:
    return sum(block) / len(block) + gap * (len(block) - 1) / 2
