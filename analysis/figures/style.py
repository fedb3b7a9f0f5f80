"""How figures look: colours that colour-blind readers tell apart, marks, stable files."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

# Okabe and Ito's palette, without the yellow that white paper swallows.
BLACK, GREY, GONE = "#1a1a1a", "#666666", "#d4d4d4"
BLUE, ORANGE, GREEN = "#0072b2", "#c97b00", "#008f68"
VERMILION, PURPLE, SKY = "#d55e00", "#b0588f", "#3f9fd4"
COLOURS = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY)
MARKS = ("o", "s", "^", "D", "v", "P", "X")

STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.labelcolor": BLACK,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "svg.hashsalt": "mustdrop",
    "savefig.dpi": 160,
}


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


def save(figure: Figure, path: Path) -> Path:
    """Write a figure without date and version, so that equal figures are equal files."""
    path.parent.mkdir(parents=True, exist_ok=True)
    dated = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}, ".png": {"Software": None}}
    figure.savefig(path, metadata=dated.get(path.suffix))
    return path
