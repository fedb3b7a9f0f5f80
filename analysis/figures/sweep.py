"""Sweeps of two settings as heat maps of accuracy, with lines of equal budget.

One panel per value of a third setting. Works for any entries of the configs that differ. Knows
nothing about the meaning of the settings.
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
LEVELS = (24, 32, 48, 64, 96, 128, 192, 256, 384, 512)  # tokens per layer
ENTRY = re.compile(r", (?=[\w.]+=)")  # values may contain a comma


@dataclass(frozen=True, eq=False)
class Swept:
    """Runs of a method that differ in some settings.

    Attributes:
        cells: Runs.
        entries: Values of the swept settings of each run.
        settings: Names of the swept settings, such as ``prefill.gamma``; most values first.
    """

    cells: Sequence[RunResult]
    entries: Sequence[Mapping[str, str]]
    settings: Sequence[str]

    def values(self, setting: str) -> list[str]:
        """Values of a setting, numbers in order."""
        return sorted({entry[setting] for entry in self.entries}, key=_order)


def sweeps(cells: Sequence[RunResult]) -> list[Swept]:
    """Find the methods that ran with at least two settings swept at one budget."""
    groups: dict[tuple[str, ...], list[RunResult]] = {}
    for cell in cells:
        if cell.metric is not None and cell.variant:
            groups.setdefault((cell["method"], cell["budget"], str(cell.image)), []).append(cell)
    out = []
    for members in groups.values():
        entries = [entries_of(cell.variant) for cell in members]
        names = [name for name in entries[0] if all(name in entry for entry in entries)]
        counts = {name: len({entry[name] for entry in entries}) for name in names}
        names = [name for name in sorted(names, key=lambda name: -counts[name]) if name != "seed"]
        if len([name for name in names if counts[name] > 1]) >= 2:
            out.append(Swept(members, entries, names))
    return out


def entries_of(variant: str) -> dict[str, str]:
    """Parse a variant such as ``a.b=1, c=[2, 3]`` into a mapping."""
    pairs = (part.split("=", 1) for part in ENTRY.split(variant))
    return dict((name, value) for name, value in pairs)


@styled
def draw(swept: Swept, across: str | None = None, down: str | None = None) -> Figure:
    """Draw one map per combination of the other settings, with the best field framed.

    Args:
        swept: Runs of the sweep.
        across: Setting along x; by default the one with the most values.
        down: Setting along y; by default the next one.

    Raises:
        ValueError: If a setting was not swept, or two runs belong to one field.
    """
    x = across or swept.settings[0]
    y = down or next(setting for setting in swept.settings if setting != x)
    for setting in (x, y):
        if setting not in swept.settings:
            raise ValueError(f"expected one of {list(swept.settings)}, got {setting}")
    others = [setting for setting in swept.settings if setting not in (x, y)]
    fields: dict[tuple[str, ...], dict[tuple[str, str], RunResult]] = {}
    for cell, entry in zip(swept.cells, swept.entries, strict=True):
        panel = fields.setdefault(tuple(entry[setting] for setting in others), {})
        if (entry[x], entry[y]) in panel:
            raise ValueError(
                f"expected one run per field, got two with {x}={entry[x]}, {y}={entry[y]}"
            )
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
    for ax, values in zip(axes.flat, names, strict=False):
        shown = _panel(ax, fields[values], (swept.values(x), swept.values(y)), scores, ends)
        tied = tied or len(ax.collections[0].get_paths()) > 0
        parts = (
            f"{_letter(name)} = {_short(value)}" for name, value in zip(others, values, strict=True)
        )
        ax.set_title(", ".join(parts), loc="left")
        ax.set(xlabel=_letter(x), ylabel=_letter(y))
    for ax in axes.flat[len(names) :]:
        ax.set_visible(False)
    assert shown is not None
    first = swept.cells[0]
    bar = figure.colorbar(shown, ax=axes, aspect=25, pad=0.02)
    bar.set_label(f"{first.metric}, %", size=7)
    bar.outline.set_visible(False)
    title = " · ".join((first["method"], *first.group[1:], f"{first['n']} samples"))
    margin = max(50 * (mean.high - mean.low) for mean in map(_interval, swept.cells))
    note = "lines: equal executed average, tokens per layer; framed: best"
    if tied:
        note += " (ties dotted; solid: fewest tokens)"
    note += f"; 95 % intervals within ±{margin:.1f}"
    note = textwrap.fill(note, int(17 * wide))
    figure.suptitle(f"{title}\n{note}", size=7.5, x=0.01, ha="left")
    return figure


def _panel(
    ax: Axes,
    fields: Mapping[tuple[str, str], RunResult],
    ticks: tuple[list[str], list[str]],
    scores: Mapping[int, float],
    ends: tuple[float, float],
) -> AxesImage:
    score = np.full((len(ticks[1]), len(ticks[0])), np.nan)
    spent = np.full_like(score, np.nan)
    for (x, y), cell in fields.items():
        field = ticks[1].index(y), ticks[0].index(x)
        score[field], spent[field] = scores[id(cell)], cell.executed
    image = ax.imshow(score, cmap=HEAT, vmin=ends[0], vmax=ends[1], origin="lower", aspect="auto")
    for (row, column), value in np.ndenumerate(score):
        if np.isfinite(value) and score.size <= 64:
            background = image.cmap(image.norm(value))
            text = ax.text(
                column - 0.43, row - 0.42, f"{value:.1f}", ha="left", va="bottom", size=7,
                color="white" if sum(background[:3]) < 1.6 else BLACK, zorder=4,
            )  # fmt: skip
            # the box hides the lines of equal budget behind the number
            text.set_bbox({"fc": background, "ec": "none", "pad": 1.2})
    # the frame of the best field is solid, that of other fields with the same score is dotted
    best = min(np.ndindex(*score.shape), key=lambda f: _rank(float(score[f]), float(spent[f])))
    ax.add_patch(_frame(best))
    others = [_frame(field) for field in _ties(score) if field != best]
    ax.add_collection(
        PatchCollection(
            others, facecolors="none", edgecolors=VERMILION, linestyles=":", linewidths=1.2,
            zorder=1.5,
        )
    )  # fmt: skip
    if min(score.shape) > 1 and np.isfinite(spent).all():
        _budgets(ax, spent)
    ax.set_xticks(range(len(ticks[0])), [_short(value) for value in ticks[0]])
    ax.set_yticks(range(len(ticks[1])), [_short(value) for value in ticks[1]])
    ax.spines[:].set_visible(False)
    return image


def _ties(score: np.ndarray) -> list[tuple[int, ...]]:
    """Fields with the best score."""
    best = np.nanmax(score)
    return [field for field in np.ndindex(*score.shape) if np.isclose(score[field], best)]


def _frame(field: tuple[int, ...]) -> Rectangle:
    row, column = field
    return Rectangle((column - 0.48, row - 0.48), 0.96, 0.96, fill=False, ec=VERMILION, lw=1.6)


def _rank(score: float, spent: float) -> tuple[float, float]:
    """Sort key: best score first, then fewest tokens; fields without a run last."""
    return (-score, spent) if np.isfinite(score) else (np.inf, np.inf)


def _budgets(ax: Axes, spent: np.ndarray) -> None:
    """Draw lines of equal executed average, continued from the field centres to the edges."""
    levels = [level for level in LEVELS if spent.min() < level < spent.max()]
    if not levels:
        return
    rows, columns = spent.shape
    x, y = ([-0.5, *range(count), count - 0.5] for count in (columns, rows))
    padded = np.pad(spent, 1, mode="edge")
    ax.contour(x, y, padded, levels=levels, colors="white", linewidths=2.2)
    lines = ax.contour(x, y, padded, levels=levels, colors=BLACK, linewidths=0.9)
    for text in ax.clabel(lines, fmt="%.0f", fontsize=SMALL, inline=False):
        text.set_rotation(0)
        text.set_bbox({"fc": "white", "ec": "none", "pad": 0.8, "alpha": 0.95})


def _score(cell: RunResult) -> float:
    return 100 * _interval(cell).value


def _interval(cell: RunResult) -> Interval:
    return mean_interval(cell.samples["score"], cell.samples["image"])


def _letter(setting: str) -> str:
    """Letter of a setting in the paper, or its name without the stage."""
    name = setting.rpartition(".")[2]
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
    """Sort key: numbers by size, then other values."""
    number = _number(value)
    return (False, number, "") if number is not None else (True, 0.0, value)
