"""Names beside the ends of lines, moved apart where they would print over each other.

Knows nothing about methods.
"""

from collections.abc import Sequence

from matplotlib.axes import Axes

from analysis.figures.style import SMALL

End = tuple[float, float, str, str]  # x, y, name, colour


def label_ends(place: Axes, ends: Sequence[End], size: float = SMALL) -> None:
    """Name lines right of the panel, each as near to its last point's height as there is room.

    Args:
        place: With its final limits.
        ends: The last point of each line, its name, its colour.
        size: Of the letters, in points.
    """
    bottom, top = place.get_ylim()
    tall = top - bottom
    figure = place.get_figure()
    assert figure is not None
    inches = place.get_position().height * figure.bbox.height / figure.dpi
    gap = 1.25 * size / 72 / inches
    wanted = sorted(((y - bottom) / tall, x, label, colour) for x, y, label, colour in ends)
    heights = spread([height for height, *_ in wanted], gap)
    if heights and heights[-1] - heights[0] < 1:  # none outside, if all have room
        shift = min(max(0.0, -heights[0]), 1.0) - max(0.0, heights[-1] - 1)
        heights = [height + shift for height in heights]
    for (height, x, label, colour), free in zip(wanted, heights, strict=True):
        place.annotate(
            label, (x, bottom + height * tall), (1.04, free), "data", "axes fraction",
            color=colour, va="center", size=size, annotation_clip=False,
            arrowprops={
                "arrowstyle": "-", "color": colour, "lw": 0.5, "alpha": 0.5, "shrinkB": 3,
                "relpos": (0, 0.5),
            },
            zorder=1,
        )  # fmt: skip


def spread(heights: Sequence[float], gap: float) -> list[float]:
    """Ascending heights, moved as little as it takes to stand ``gap`` apart."""
    blocks: list[list[float]] = []
    for height in heights:
        blocks.append([height])
        while len(blocks) > 1 and _bottom(blocks[-1], gap) < _top(blocks[-2], gap) + gap:
            blocks[-2:] = [blocks[-2] + blocks[-1]]
    return [_bottom(block, gap) + gap * place for block in blocks for place in range(len(block))]


def _bottom(block: Sequence[float], gap: float) -> float:
    return sum(block) / len(block) - gap * (len(block) - 1) / 2


def _top(block: Sequence[float], gap: float) -> float:
    return sum(block) / len(block) + gap * (len(block) - 1) / 2
