"""Marks of methods as SVG paths, with the shapes and colours of the figures.

Knows nothing about the meaning of the marks.
"""

from functools import cache

import numpy as np
from matplotlib.markers import MarkerStyle
from matplotlib.path import Path as Outline

from analysis.figures.palette import look_of

LETTERS = {Outline.MOVETO: "M", Outline.LINETO: "L", Outline.CURVE3: "Q", Outline.CURVE4: "C"}


@cache
def outline(marker: str) -> str:
    """SVG path data (``d``) of a matplotlib mark, centred at (0, 0) and 2 wide."""
    style = MarkerStyle(marker)
    # Marks of matplotlib are 1 wide (some within [-1, 1]), with y up; in SVG, y points down.
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
    style = look_of(method)
    return {"color": style.color, "outline": outline(style.marker)}
