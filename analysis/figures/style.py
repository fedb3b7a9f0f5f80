"""How figures look: print sizes, colours that colour-blind readers tell apart, stable files.

Knows nothing about what is drawn. The colours of methods are those of :mod:`.palette`.
"""

from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from analysis.figures.palette import look_of

SINGLE, DOUBLE = 3.25, 6.75  # inches: one column of a two-column paper, and both
SMALL = 6.5  # points, the least that is used: readable in print at these widths

# Okabe and Ito's palette, without the yellow that white paper swallows.
BLACK, GREY, GONE = "#1a1a1a", "#666666", "#d4d4d4"
BLUE, ORANGE, GREEN = "#0072b2", "#c97b00", "#008f68"
VERMILION, PURPLE, SKY = "#d55e00", "#b0588f", "#3f9fd4"
COLOURS = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY)  # of anything but methods
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


def look(method: str) -> dict[str, Any]:
    """Colour, mark and line of a method, as matplotlib takes them; see :mod:`.palette`."""
    found = look_of(method)
    broken = "--" if found.grey and method != "vanilla" else "-"
    linestyle = ":" if "," in method else broken  # a control on the image
    return {"color": found.color, "marker": found.marker, "linestyle": linestyle}


@styled
def save(figure: Figure, path: Path) -> Path:
    """Write a figure without date and version, so that equal figures are equal files."""
    path.parent.mkdir(parents=True, exist_ok=True)
    dated = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}, ".png": {"Software": None}}
    figure.savefig(path, metadata=dated.get(path.suffix))
    return path
