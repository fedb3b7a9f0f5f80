"""Accuracy against what it costs: executed tokens, FLOPs, or latency.

A line is a method, with 95 % intervals; cheaper runs stand right, where lines part. Many methods
are told apart by the stages that drop: a panel each, with random tokens pale in all. Points stand
at what was measured: nothing is moved aside. Knows nothing about models.
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
from analysis.figures.points import Cost, Point, families, points
from analysis.figures.style import BLACK, DOUBLE, GREY, SMALL, look, rule, save, sheet, styled
from analysis.records.cells import RunResult, groups, load

NAMES: Mapping[str, str] = {
    "tokens": "vision tokens a layer, executed average (fewer →)",
    "flops": "FLOPs of the prefill, % of vanilla (fewer →)",
    "latency": "median time of a sample, ms (less →)",
}
FEW = 8  # methods that one panel holds
REFERENCE = "random"  # the method that stands pale in every panel
WIDE, TALL = 0.68 * DOUBLE, 2.8  # inches of a panel alone
ASIDE = 1.3  # room left and right of the points, as a factor


def tradeoff(root: Path | str, path: Path | str, metric: str | None = None) -> Path:
    """Accuracy against executed tokens, of each experiment, model and benchmark in a folder.

    Args:
        root: A results folder.
        path: Where to; the ending says the format.
        metric: The score to read; by default each benchmark's own.

    Raises:
        FileNotFoundError: If the folder is missing.
        ValueError: If nothing in it can be drawn.
    """
    ran = [cell for cell in load(root, metric) if cell.metric is not None and cell.executed > 0]
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
    """The figure of one experiment, model and benchmark.

    Raises:
        ValueError: See :func:`points`.
    """
    figure = sheet(*_size(cells))
    _fill(figure, cells, against)
    return figure


def _size(cells: Sequence[RunResult]) -> tuple[float, float]:
    """Inches: one panel, or a panel a family, two abreast."""
    found = families(cells)
    if sum(map(len, found.values())) <= FEW:
        return WIDE, TALL
    most = max(map(len, found.values()))
    return DOUBLE, ceil(len(found) / 2) * max(2.1, 0.13 * most + 0.5) + 0.3


def _fill(figure: Figure | SubFigure, cells: Sequence[RunResult], against: Cost) -> None:
    lines = points(cells, against)
    vanilla = lines.pop("vanilla", [])
    found = families([cell for cell in cells if cell.metric is not None])
    if sum(map(len, found.values())) <= FEW:
        found = {"": [name for names in found.values() for name in names]}
    across = min(len(found), 2) or 1
    axes = figure.subplots(
        ceil(len(found) / 2) or 1, across, squeeze=False, sharex=True, sharey=True
    )
    spent = [point.x for line in lines.values() for point in line]
    if against != "tokens":
        spent += [point.x for point in vanilla]
    _scale(axes[0, 0], spent, cells, against)
    ends = []
    for place, (family, names) in zip(axes.flat, found.items(), strict=False):
        if REFERENCE in lines.keys() - set(names):  # every other line behind would say nothing
            pale = lines[REFERENCE]
            style = look(REFERENCE) | {"marker": ""}
            place.plot(
                [p.x for p in pale], [p.y for p in pale], alpha=0.4, lw=0.8, zorder=0, **style
            )
        ends.append(_lines(place, {name: lines[name] for name in names}, against))
        place.set_title(family, loc="left")
        rule(place)
    share = all(point.high <= 100 for line in (*lines.values(), vanilla) for point in line)
    metric = next(cell.metric for cell in cells if cell.metric is not None)
    for number, place in enumerate(axes.flat):
        if number >= max(len(found), 1):
            place.set_visible(False)
            continue
        place.tick_params(labelbottom=number + across >= len(found))
        if number + across >= len(found):
            place.set_xlabel(NAMES[against])
        if number % across == 0:
            place.set_ylabel(f"{metric}, %" if share else str(metric))
        _band(place, vanilla, against)
    for place, own in zip(axes.flat, ends, strict=False):
        own += [(place.get_xlim()[1], point.y, "vanilla", BLACK) for point in vanilla]
        label_ends(place, own)
    figure.suptitle(" · ".join(cells[0].group), size=7.5, weight="bold", x=0.01, ha="left")
    _notes(figure, lines, cells)


def _lines(place: Axes, lines: Mapping[str, Sequence[Point]], against: Cost) -> list[End]:
    """Points with intervals; hollow where the budget was missed. Returns where the lines end.

    Runs of a sweep, which had no budget, stand pale beside those that had one.
    """
    ends = []
    for number, (name, runs) in enumerate(sorted(lines.items())):
        style = look(name)
        line = [point for point in runs if point.asked] or list(runs)
        for point in runs:
            if point not in line:
                place.plot(
                    point.x, point.y, style["marker"], ms=3, color=style["color"], alpha=0.35, mew=0
                )
        x = np.array([point.x for point in line])
        y = np.array([point.y for point in line])
        reach = np.array([[p.y - p.low for p in line], [p.high - p.y for p in line]])
        joined = all(point.asked for point in line) and len(set(x)) == len(x)
        # intervals at equal budgets lie over each other: wider caps tell their ends apart
        place.errorbar(
            x, y, np.nan_to_num(reach), color=style["color"], capsize=1.2 + 0.6 * (number % 6),
            elinewidth=0.6, capthick=0.6, linestyle=style["linestyle"] if joined else "none",
        )  # fmt: skip
        for at, height, point in zip(x, y, line, strict=True):
            face = style["color"] if point.met else "white"
            place.plot(
                at, height, style["marker"], ms=3.8, mfc=face, mec=style["color"], mew=0.8, zorder=3
            )
        ends.append((float(x[0]), float(y[0]), name, style["color"]))
    return ends


def _band(place: Axes, vanilla: Sequence[Point], against: Cost) -> None:
    """Vanilla's accuracy and interval, from edge to edge; what it costs as a star."""
    for point in vanilla:
        place.axhspan(point.low, point.high, color=GREY, alpha=0.13, lw=0)
        place.axhline(point.y, color=BLACK, lw=0.8, zorder=1)
        if against != "tokens":  # they are far to the right, and the same for all
            place.plot(point.x, point.y, "*", ms=7, color=BLACK, zorder=4)


def _scale(place: Axes, values: Sequence[float], cells: Sequence[RunResult], against: Cost) -> None:
    """A logarithmic axis of costs, with the budgets that were asked for as its ticks."""
    low, high = (min(values) / ASIDE, max(values) * ASIDE) if values else (1.0, 2.0)
    place.set_xscale("log")
    place.set_xlim(high, low)
    if against == "tokens":
        asked = sorted({cell.budget for cell in cells if cell.budget})
        ticks = _ticks(asked or sorted(values), low, high)
    else:
        ticks = LogLocator(subs=(1, 2, 5)).tick_values(low, high)
    factor = 1000 if against == "latency" else 1
    place.xaxis.set_major_locator(FixedLocator(ticks))
    place.xaxis.set_minor_locator(NullLocator())
    place.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{factor * value:.3g}"))


def _ticks(values: Sequence[float], low: float, high: float) -> list[float]:
    """The values, and powers of two around them, none printed over another."""
    kept: list[float] = []
    for tick in [*values, *(2.0**power for power in range(20))] if values else []:
        if low <= tick <= high and all(abs(np.log2(tick / other)) > 0.2 for other in kept):
            kept.append(tick)
    return kept


def _mixed(line: Sequence[Point]) -> bool:
    """Whether some runs of a method had a budget and some had none."""
    return len({point.asked for point in line}) > 1


def _notes(
    figure: Figure | SubFigure,
    lines: Mapping[str, Sequence[Point]],
    cells: Sequence[RunResult],
) -> None:
    """What hollow marks mean, and which budgets could not be reached."""
    told = []
    if len(figure.axes) > 1 and REFERENCE in lines:
        told.append(f"broken, without marks: {REFERENCE}")
    if any(_mixed(line) for line in lines.values()):
        told.append("pale: runs without a budget")
    if any(not point.met for line in lines.values() for point in line):
        told.append("hollow: more than 1 % off its budget")
    floors = [cell for cell in cells if cell.metric is None and cell["floor"] is not None]
    told += [
        f"{cell['method']}: {str(cell['budget']).removeprefix('t')} is below its floor, "
        f"{cell['floor']:.0f}"
        for cell in floors
    ]
    if told:
        entries = [Line2D([], [], ls="none", label=text) for text in told]
        figure.legend(
            handles=entries, loc="outside lower center", ncols=2, fontsize=SMALL, labelcolor=GREY,
            handlelength=0, handletextpad=0,
        )  # fmt: skip
