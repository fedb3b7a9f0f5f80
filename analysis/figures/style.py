"""Style of figures: print sizes, colours for colour-blind readers, reproducible files.

Knows nothing about what is drawn. Methods have the colours of :mod:`.palette`.
"""

from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from analysis.figures.palette import look_of

SINGLE, DOUBLE = 3.25, 6.75  # inches: one and both columns of a two-column paper
SMALL = 6.5  # points: smallest font size, readable in print at these widths

# Okabe and Ito's palette without yellow, which is hard to see on white.
BLACK, GREY, GONE = "#1a1a1a", "#666666", "#d4d4d4"
BLUE, ORANGE, GREEN = "#0072b2", "#c97b00", "#008f68"
VERMILION, PURPLE, SKY = "#d55e00", "#b0588f", "#3f9fd4"
COLOURS = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY)  # for lines that are not methods
HEAT = "cividis"  # uniform in lightness, and suitable for colour-blind readers

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
    "pdf.fonttype": 42,  # TrueType: publishers want text as text
    "savefig.dpi": 300,
}
# Decorator: a function draws in this style, whatever style the caller has set.
styled = matplotlib.rc_context(STYLE)


def sheet(width: float, height: float, layout: Any = "constrained") -> Figure:
    """Make an empty figure; sizes are in inches. It needs no window and no global state."""
    figure = Figure(figsize=(width, height), layout=layout)
    FigureCanvasAgg(figure)
    return figure


def rule(ax: Axes) -> None:
    """Draw faint horizontal grid lines."""
    ax.grid(axis="y", color="0.92", lw=0.6)


def look(method: str) -> dict[str, Any]:
    """Colour, marker and line style of a method as matplotlib arguments; see :mod:`.palette`."""
    style = look_of(method)
    plain = "--" if style.grey and method != "vanilla" else "-"
    linestyle = ":" if "," in method else plain  # the comma marks a control on the image
    return {"color": style.color, "marker": style.marker, "linestyle": linestyle}


@styled
def save(figure: Figure, path: Path) -> Path:
    """Write a figure without date and version, so that equal figures give equal files."""
    path.parent.mkdir(parents=True, exist_ok=True)
    metadata = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}, ".png": {"Software": None}}
    figure.savefig(path, metadata=metadata.get(path.suffix))
    return path
