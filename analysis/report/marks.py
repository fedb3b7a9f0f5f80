"""Methods' marks as paths that a browser draws: the shapes and colours that the figures have.

Knows nothing about what they stand for.
"""

from functools import cache

import numpy as np
from matplotlib.markers import MarkerStyle
from matplotlib.path import Path as Outline

from analysis.figures.palette import look_of

LETTERS = {Outline.MOVETO: "M", Outline.LINETO: "L", Outline.CURVE3: "Q", Outline.CURVE4: "C"}


@cache
def outline(marker: str) -> str:
    """The ``d`` of an SVG path: a mark of matplotlib's about (0, 0), 2 wide."""
    style = MarkerStyle(marker)
    # matplotlib's marks are 1 wide, some within [-1, 1]; y points up there, down here
    shape = style.get_path().transformed(style.get_transform())
    half = float(np.abs(np.asarray(shape.vertices)).max())
    parts = []
    for points, code in shape.iter_segments(simplify=False):
        if code == Outline.CLOSEPOLY:
            parts.append("Z")
            continue
        numbers = [f"{value / half:.3g}" for value in points]
        numbers[1::2] = [f"{-value / half:.3g}" for value in points[1::2]]
        parts.append(LETTERS[code] + " ".join(numbers))
    return "".join(parts).replace("-0 ", "0 ")


def look(method: str) -> dict[str, str]:
    """Colour and outline of a method's mark."""
    found = look_of(method)
    return {"color": found.color, "outline": outline(found.marker)}
