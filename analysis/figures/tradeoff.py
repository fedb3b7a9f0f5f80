"""Accuracy against cost: executed tokens, FLOPs or latency.

Each line is a method with 95 % intervals; cheaper runs are on the right, where lines spread. Many
methods are split into panels by the stages that drop, with random tokens pale in every panel.
Points are not moved from the measured values. Knows nothing about models.
"""

from collections.abc import Mapping, Sequence
from math import ceil
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

from analysis.figures.labels import End, label_ends
from analysis.figures.points import Cost, Point, families, points, with_cost
from analysis.figures.style import BLACK, DOUBLE, GREY, SMALL, look, rule, save, sheet, styled
from analysis.records.budgets import budget_label
from analysis.records.cells import RunResult, groups, load
from mustdrop.budget import floor_text

NAMES: Mapping[str, str] = {
    "tokens": "vision tokens per layer, executed average (fewer →)",
    "flops": "FLOPs of the prefill, % of vanilla (fewer →)",
    "latency": "median time per sample, ms (less →)",
}
FEW = 8  # most methods in one panel
REFERENCE = "random"  # method shown pale in every panel
WIDE, TALL = 0.68 * DOUBLE, 2.8  # inches of a figure with one panel
MARGIN = 1.3  # factor from the outer points to the axis limits


def tradeoff(root: Path | str, path: Path | str, metric: str | None = None) -> Path:
    """Draw accuracy against executed tokens for each experiment, model and benchmark in a folder.

    Args:
        root: Results folder.
        path: Output file; its suffix sets the format.
        metric: Score to read; by default the main score of each benchmark.

    Raises:
        FileNotFoundError: If the folder is missing.
        ValueError: If no run in the folder can be drawn.
    """
    ran = with_cost(load(root, metric))
    if not ran:
        raise ValueError(f"no run under {root} has an accuracy to draw")
    return save(_stacked(list(groups(ran).values())), Path(path))


@styled
def _stacked(parts: Sequence[Sequence[RunResult]]) -> Figure:
    sizes = [_size(cells) for cells in parts]
    figure = sheet(max(wide for wide, _ in sizes), sum(tall for _, tall in sizes))
    shares = [tall for _, tall in sizes]
    subfigures = figure.subfigures(len(parts), 1, squeeze=False, height_ratios=shares)
    for subfigure, cells in zip(subfigures.flat, parts, strict=True):
        _fill(subfigure, cells, "tokens")
    return figure


@styled
def draw(cells: Sequence[RunResult], against: Cost = "tokens") -> Figure:
    """Draw the figure of one experiment, model and benchmark.

    Raises:
        ValueError: See :func:`points`.
    """
    figure = sheet(*_size(cells))
    _fill(figure, cells, against)
    return figure


def _size(cells: Sequence[RunResult]) -> tuple[float, float]:
    """Size in inches of one panel, or of two columns of panels with one family each."""
    groups = families(cells)
    if sum(map(len, groups.values())) <= FEW:
        return WIDE, TALL
    most = max(map(len, groups.values()))
    return DOUBLE, ceil(len(groups) / 2) * max(2.1, 0.13 * most + 0.5) + 0.3


def _fill(figure: Figure | SubFigure, cells: Sequence[RunResult], against: Cost) -> None:
    lines = points(cells, against)
    vanilla = lines.pop("vanilla", [])
    panels = families(cells)
    if sum(map(len, panels.values())) <= FEW:
        panels = {"": [name for names in panels.values() for name in names]}
    columns = min(len(panels), 2) or 1
    axes = figure.subplots(
        ceil(len(panels) / 2) or 1, columns, squeeze=False, sharex=True, sharey=True
    )
    spent = [point.x for line in lines.values() for point in line]
    if against != "tokens":
        spent += [point.x for point in vanilla]
    _scale(axes[0, 0], spent, cells, against)
    ends = []
    for ax, (family, names) in zip(axes.flat, panels.items(), strict=False):
        if REFERENCE in lines.keys() - set(names):  # only if random has no line in this panel
            pale = _joined(lines[REFERENCE])
            style = look(REFERENCE) | {"marker": ""}
            ax.plot([p.x for p in pale], [p.y for p in pale], alpha=0.4, lw=0.8, zorder=0, **style)
        ends.append(_lines(ax, {name: lines[name] for name in names}, against))
        ax.set_title(family, loc="left")
        rule(ax)
    share = all(point.high <= 100 for line in (*lines.values(), vanilla) for point in line)
    metric = next(cell.metric for cell in cells if cell.metric is not None)
    for number, ax in enumerate(axes.flat):
        if number >= max(len(panels), 1):
            ax.set_visible(False)
            continue
        ax.tick_params(labelbottom=number + columns >= len(panels))
        if number + columns >= len(panels):
            ax.set_xlabel(NAMES[against])
        if number % columns == 0:
            ax.set_ylabel(f"{metric}, %" if share else str(metric))
        _band(ax, vanilla, against)
    for ax, labels in zip(axes.flat, ends, strict=False):
        labels += [(ax.get_xlim()[1], point.y, "vanilla", BLACK) for point in vanilla]
        label_ends(ax, labels)
    figure.suptitle(" · ".join(cells[0].group), size=7.5, weight="bold", x=0.01, ha="left")
    _notes(figure, lines, cells)


def _lines(ax: Axes, lines: Mapping[str, Sequence[Point]], against: Cost) -> list[End]:
    """Draw points with intervals, hollow if the budget was missed; return the ends of the lines.

    Runs without a budget, such as those of a sweep, are pale if the method has runs with one.
    """
    ends = []
    for number, (name, runs) in enumerate(sorted(lines.items())):
        style = look(name)
        line = _joined(runs)
        for point in runs:
            if point not in line:
                ax.plot(
                    point.x, point.y, style["marker"], ms=3, color=style["color"], alpha=0.35, mew=0
                )
        x = np.array([point.x for point in line])
        y = np.array([point.y for point in line])
        errors = np.array([[p.y - p.low for p in line], [p.high - p.y for p in line]])
        joined = all(point.has_budget for point in line) and len(set(x)) == len(x)
        # intervals at equal budgets overlap: caps of different widths show their ends
        ax.errorbar(
            x, y, np.nan_to_num(errors), color=style["color"], capsize=1.2 + 0.6 * (number % 6),
            elinewidth=0.6, capthick=0.6, linestyle=style["linestyle"] if joined else "none",
        )  # fmt: skip
        for x_value, y_value, point in zip(x, y, line, strict=True):
            face = style["color"] if point.met else "white"
            ax.plot(
                x_value, y_value, style["marker"], ms=3.8, mfc=face, mec=style["color"], mew=0.8,
                zorder=3,
            )  # fmt: skip
        ends.append((float(x[0]), float(y[0]), name, style["color"]))
    return ends


def _joined(runs: Sequence[Point]) -> list[Point]:
    """Points that make a method's line: those with a budget, or all if none has one."""
    return [point for point in runs if point.has_budget] or list(runs)


def _band(ax: Axes, vanilla: Sequence[Point], against: Cost) -> None:
    """Draw the accuracy of vanilla with its interval as a band, and its cost as a star."""
    for point in vanilla:
        ax.axhspan(point.low, point.high, color=GREY, alpha=0.13, lw=0)
        ax.axhline(point.y, color=BLACK, lw=0.8, zorder=1)
        # the token count of vanilla is far outside the axis and needs no mark
        if against != "tokens":
            ax.plot(point.x, point.y, "*", ms=7, color=BLACK, zorder=4)


def _scale(ax: Axes, values: Sequence[float], cells: Sequence[RunResult], against: Cost) -> None:
    """Set a logarithmic cost axis, with the requested budgets as ticks."""
    low, high = (min(values) / MARGIN, max(values) * MARGIN) if values else (1.0, 2.0)
    ax.set_xscale("log")
    ax.set_xlim(high, low)
    if against == "tokens":
        budgets = sorted({cell.budget for cell in cells if cell.budget})
        ticks = _ticks(budgets or sorted(values), low, high)
    else:
        ticks = LogLocator(subs=(1, 2, 5)).tick_values(low, high)
    factor = 1000 if against == "latency" else 1
    ax.xaxis.set_major_locator(FixedLocator(ticks))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{factor * value:.3g}"))


def _ticks(values: Sequence[float], low: float, high: float) -> list[float]:
    """The values and powers of two in range, without ticks that would overlap."""
    kept: list[float] = []
    for tick in [*values, *(2.0**power for power in range(20))] if values else []:
        if low <= tick <= high and all(abs(np.log2(tick / other)) > 0.2 for other in kept):
            kept.append(tick)
    return kept


def _mixed(line: Sequence[Point]) -> bool:
    """Whether some runs of a method had a budget and some had none."""
    return len({point.has_budget for point in line}) > 1


def _notes(
    figure: Figure | SubFigure,
    lines: Mapping[str, Sequence[Point]],
    cells: Sequence[RunResult],
) -> None:
    """Explain pale and hollow points, and list the budgets that could not be reached."""
    notes = []
    if len(figure.axes) > 1 and REFERENCE in lines:
        notes.append(f"dashed, without markers: {REFERENCE}")
    if any(_mixed(line) for line in lines.values()):
        notes.append("pale: runs without a budget")
    if any(not point.met for line in lines.values() for point in line):
        notes.append("hollow: more than 1 % off its budget")
    unreached = [cell for cell in cells if cell.metric is None and cell["floor"] is not None]
    notes += [
        f"{cell['method']} cannot reach {budget_label(cell['budget'])}: "
        f"at least {floor_text(cell['floor'], '.0f')}"
        for cell in unreached
    ]
    if notes:
        entries = [Line2D([], [], ls="none", label=text) for text in notes]
        figure.legend(
            handles=entries, loc="outside lower center", ncols=2, fontsize=SMALL, labelcolor=GREY,
            handlelength=0, handletextpad=0,
        )  # fmt: skip
