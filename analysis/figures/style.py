"""How figures look: print sizes, colours that colour-blind readers tell apart, stable files.

Knows nothing about what is drawn.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

SINGLE, DOUBLE = 3.25, 6.75  # inches: one column of a two-column paper, and both
SMALL = 6.5  # points, the least that is used: readable in print at these widths

# Okabe and Ito's palette, without the yellow that white paper swallows.
BLACK, GREY, GONE = "#1a1a1a", "#666666", "#d4d4d4"
BLUE, ORANGE, GREEN = "#0072b2", "#c97b00", "#008f68"
VERMILION, PURPLE, SKY = "#d55e00", "#b0588f", "#3f9fd4"
COLOURS = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY)
MARKS = ("o", "s", "^", "D", "v", "P", "X")
HEAT = "cividis"  # even in lightness, and the same to colour-blind readers

STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 7.5,
    "axes.titlesize": 7.5,
    "axes.labelsize": 7.5,
    "axes.titlepad": 4,
    "axes.labelpad": 2.5,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.labelcolor": BLACK,
    "axes.axisbelow": True,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelsize": 6.8,
    "ytick.labelsize": 6.8,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "legend.fontsize": 6.8,
    "legend.frameon": False,
    "lines.linewidth": 1.2,
    "svg.hashsalt": "mustdrop",
    "pdf.fonttype": 42,  # TrueType: text stays text, as publishers ask
    "savefig.dpi": 300,
}
# A function under it draws in this style, whatever the caller's is.
styled = matplotlib.rc_context(STYLE)


def sheet(width: float, height: float, layout: Any = "constrained") -> Figure:
    """An empty figure of this many inches; no window, no global state."""
    figure = Figure(figsize=(width, height), layout=layout)
    FigureCanvasAgg(figure)
    return figure


def rule(place: Axes) -> None:
    """Faint lines to read heights by."""
    place.grid(axis="y", color="0.92", lw=0.6)


def looks(methods: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Colour, mark and line of each method, the same for the same set; ``random`` is grey."""
    names = sorted(set(methods) - {"vanilla", "random"})
    out = {
        name: {
            "color": COLOURS[place % len(COLOURS)],
            "marker": MARKS[place % len(MARKS)],
            "linestyle": "-" if place < len(COLOURS) else ":",
        }
        for place, name in enumerate(names)
    }
    out["random"] = {"color": GREY, "marker": "x", "linestyle": "--"}
    out["vanilla"] = {"color": BLACK, "marker": "*", "linestyle": "-"}
    return out


@styled
def save(figure: Figure, path: Path) -> Path:
    """Write a figure without date and version, so that equal figures are equal files."""
    path.parent.mkdir(parents=True, exist_ok=True)
    dated = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}, ".png": {"Software": None}}
    figure.savefig(path, metadata=dated.get(path.suffix))
    return path
