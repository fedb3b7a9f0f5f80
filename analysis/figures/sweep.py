"""Sweeps of two settings as heat maps: accuracy as colour, lines of equal budget on top.

A panel for each value of a third setting. Works for whatever entries of the configs differ. Knows
nothing about what the settings mean.
"""

import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle

from analysis.figures.style import BLACK, DOUBLE, HEAT, SINGLE, SMALL, VERMILION, sheet, styled
from analysis.records.cells import RunResult
from analysis.statistics.intervals import Interval, mean_interval

LETTERS = {"tau": "τ", "mu": "μ", "gamma": "γ", "alpha": "α"}
COLUMNS = 3
LEVELS = (24, 32, 48, 64, 96, 128, 192, 256, 384, 512)  # tokens a layer
ENTRY = re.compile(r", (?=[\w.]+=)")  # a value may hold a comma


@dataclass(frozen=True, eq=False)
class Swept:
    """A method's runs that differ in some settings.

    Attributes:
        cells: The runs.
        entries: Of each, the values of what differs.
        places: What differs, such as ``prefill.gamma``; those with the most values first.
    """

    cells: Sequence[RunResult]
    entries: Sequence[Mapping[str, str]]
    places: Sequence[str]

    def values(self, place: str) -> list[str]:
        """Its values, numbers in order."""
        return sorted({entry[place] for entry in self.entries}, key=_order)


def sweeps(cells: Sequence[RunResult]) -> list[Swept]:
    """The methods, at one budget each, that ran with at least two settings swept."""
    by: dict[tuple[str, ...], list[RunResult]] = {}
    for cell in cells:
        if cell.metric is not None and cell.variant:
            by.setdefault((cell["method"], cell["budget"], str(cell.image)), []).append(cell)
    found = []
    for members in by.values():
        entries = [entries_of(cell.variant) for cell in members]
        names = [name for name in entries[0] if all(name in entry for entry in entries)]
        counts = {name: len({entry[name] for entry in entries}) for name in names}
        places = [name for name in sorted(names, key=lambda name: -counts[name]) if name != "seed"]
        if len([name for name in places if counts[name] > 1]) >= 2:
            found.append(Swept(members, entries, places))
    return found


def entries_of(variant: str) -> dict[str, str]:
    """``a.b=1, c=[2, 3]`` as a mapping."""
    pairs = (part.split("=", 1) for part in ENTRY.split(variant))
    return dict((name, value) for name, value in pairs)


@styled
def draw(swept: Swept, across: str | None = None, down: str | None = None) -> Figure:
    """A map for each setting of the rest, with accuracy in each field and its best one framed.

    Args:
        swept: The runs.
        across: The setting along x; by default the one with the most values.
        down: Along y; by default the next.

    Raises:
        ValueError: If a setting was not swept, or two runs share a field.
    """
    x = across or swept.places[0]
    y = down or next(place for place in swept.places if place != x)
    for place in (x, y):
        if place not in swept.places:
            raise ValueError(f"expected one of {list(swept.places)}, got {place}")
    rest = [place for place in swept.places if place not in (x, y)]
    fields: dict[tuple[str, ...], dict[tuple[str, str], RunResult]] = {}
    for cell, entry in zip(swept.cells, swept.entries, strict=True):
        panel = fields.setdefault(tuple(entry[place] for place in rest), {})
        if (entry[x], entry[y]) in panel:
            raise ValueError(f"two runs have {x}={entry[x]}, {y}={entry[y]}: one field, one run")
        panel[entry[x], entry[y]] = cell
    names = sorted(fields, key=lambda values: [_order(value) for value in values])
    columns = min(len(names), COLUMNS)
    rows = ceil(len(names) / columns)
    wide = DOUBLE if columns > 1 else SINGLE
    figure = sheet(wide, rows * min(wide / columns * 0.8, 2.5) + 0.75)
    axes = figure.subplots(rows, columns, squeeze=False)
    scores = {id(cell): _score(cell) for cell in swept.cells}
    ends = min(scores.values()), max(scores.values())
    shown: AxesImage | None = None
    tied = False
    for place, values in zip(axes.flat, names, strict=False):
        shown = _panel(place, fields[values], (swept.values(x), swept.values(y)), scores, ends)
        tied = tied or len(place.collections[0].get_paths()) > 0
        told = (
            f"{_letter(name)} = {_short(value)}" for name, value in zip(rest, values, strict=True)
        )
        place.set_title(", ".join(told), loc="left")
        place.set(xlabel=_letter(x), ylabel=_letter(y))
    for place in axes.flat[len(names) :]:
        place.set_visible(False)
    assert shown is not None
    first = swept.cells[0]
    bar = figure.colorbar(shown, ax=axes, aspect=25, pad=0.02)
    bar.set_label(f"{first.metric}, %", size=7)
    bar.outline.set_visible(False)
    title = " · ".join((first["method"], *first.group[1:], f"{first['n']} samples"))
    margin = max(50 * (found.high - found.low) for found in map(_interval, swept.cells))
    told = "lines: equal executed average, tokens a layer; framed: the best"
    if tied:
        told += " (equals dotted; solid: fewest tokens)"
    told += f"; 95 % intervals within ±{margin:.1f}"
    told = textwrap.fill(told, int(17 * wide))
    figure.suptitle(f"{title}\n{told}", size=7.5, x=0.01, ha="left")
    return figure


def _panel(
    place: Axes,
    fields: Mapping[tuple[str, str], RunResult],
    ticks: tuple[list[str], list[str]],
    scores: Mapping[int, float],
    ends: tuple[float, float],
) -> AxesImage:
    score = np.full((len(ticks[1]), len(ticks[0])), np.nan)
    spent = np.full_like(score, np.nan)
    for (x, y), cell in fields.items():
        where = ticks[1].index(y), ticks[0].index(x)
        score[where], spent[where] = scores[id(cell)], cell.executed
    image = place.imshow(
        score, cmap=HEAT, vmin=ends[0], vmax=ends[1], origin="lower", aspect="auto"
    )
    for (row, column), value in np.ndenumerate(score):
        if np.isfinite(value) and score.size <= 64:
            behind = image.cmap(image.norm(value))
            text = place.text(
                column - 0.43, row - 0.42, f"{value:.1f}", ha="left", va="bottom", size=7,
                color="white" if sum(behind[:3]) < 1.6 else BLACK, zorder=4,
            )  # fmt: skip
            # lines of equal budget end at a number, none runs through it
            text.set_bbox({"fc": behind, "ec": "none", "pad": 1.2})
    # of equals the one with the fewest tokens; the others are framed with a broken line
    best = min(np.ndindex(*score.shape), key=lambda at: _worth(float(score[at]), float(spent[at])))
    place.add_patch(_frame(best))
    others = [_frame(at) for at in _ties(score) if at != best]
    place.add_collection(
        PatchCollection(
            others, facecolors="none", edgecolors=VERMILION, linestyles=":", linewidths=1.2,
            zorder=1.5,
        )
    )  # fmt: skip
    if min(score.shape) > 1 and np.isfinite(spent).all():
        _budgets(place, spent)
    place.set_xticks(range(len(ticks[0])), [_short(value) for value in ticks[0]])
    place.set_yticks(range(len(ticks[1])), [_short(value) for value in ticks[1]])
    place.spines[:].set_visible(False)
    return image


def _ties(score: np.ndarray) -> list[tuple[int, ...]]:
    """The fields with the best score."""
    return [at for at in np.ndindex(*score.shape) if np.isclose(score[at], np.nanmax(score))]


def _frame(at: tuple[int, ...]) -> Rectangle:
    row, column = at
    return Rectangle((column - 0.48, row - 0.48), 0.96, 0.96, fill=False, ec=VERMILION, lw=1.6)


def _worth(score: float, spent: float) -> tuple[float, float]:
    """The less the better; a field without a run is worst."""
    return (-score, spent) if np.isfinite(score) else (np.inf, np.inf)


def _budgets(place: Axes, spent: np.ndarray) -> None:
    """Lines of equal executed average, straight on from the middles of the fields to the edges."""
    levels = [level for level in LEVELS if spent.min() < level < spent.max()]
    if not levels:
        return
    rows, columns = spent.shape
    x, y = ([-0.5, *range(count), count - 0.5] for count in (columns, rows))
    padded = np.pad(spent, 1, mode="edge")
    place.contour(x, y, padded, levels=levels, colors="white", linewidths=2.2)
    lines = place.contour(x, y, padded, levels=levels, colors=BLACK, linewidths=0.9)
    for text in place.clabel(lines, fmt="%.0f", fontsize=SMALL, inline=False):
        text.set_rotation(0)
        text.set_bbox({"fc": "white", "ec": "none", "pad": 0.8, "alpha": 0.95})


def _score(cell: RunResult) -> float:
    return 100 * _interval(cell).value


def _interval(cell: RunResult) -> Interval:
    return mean_interval(cell.samples["score"], cell.samples["image"])


def _letter(place: str) -> str:
    """The paper's letter of a setting, or its name without the stage."""
    name = place.rpartition(".")[2]
    return LETTERS.get(name, name)


def _short(value: str) -> str:
    number = _number(value)
    return value if number is None else f"{number:.4g}"


def _number(value: str) -> float | None:
    try:
        return float(value)
    except ValueError:
        return None


def _order(value: str) -> tuple[bool, float, str]:
    """Numbers by size, before words."""
    number = _number(value)
    return (False, number, "") if number is not None else (True, 0.0, value)
