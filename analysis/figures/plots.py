"""Figures of a results folder: accuracy against executed tokens, and tokens layer by layer.

Knows nothing about models: a figure is a function of the records and their samples.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from analysis.figures.style import BLACK, GREY, STYLE, looks, save
from analysis.records.cells import Cell, groups, load
from analysis.tables import summary

Row = Mapping[Any, Any]
WIDTH, HEIGHT = 6.4, 4.0  # inches of one panel
ASIDE = 1.3  # room left and right of the points, as a factor
APART = 0.06  # least distance of two labels, as a share of the panel's height


def tradeoff(root: Path | str, path: Path | str, metric: str | None = None) -> Path:
    """Accuracy with its 95 % interval against the executed average; vanilla as a band.

    A line is a method. Points that stand at the same executed average are drawn side by side.

    Args:
        root: A results folder; each experiment, model and benchmark in it gets a panel.
        path: Where to; the ending says the format.
        metric: The score to read; by default each benchmark's own.

    Raises:
        FileNotFoundError: If the folder is missing.
        ValueError: If nothing in it can be drawn (see :func:`analysis.tables.summary`).
    """
    panels: dict[tuple[str, ...], list[Row]] = {}
    for row in summary(root, metric).to_dict("records"):
        if row["n"] and row["executed_average"] > 0:
            names = row["experiment"], row["model"], row["benchmark"]
            panels.setdefault(names, []).append(row)
    if not panels:
        raise ValueError(f"no run under {root} has an accuracy to draw")
    with matplotlib.rc_context(STYLE):
        figure, axes = _canvas(len(panels), 1)
        for place, (names, rows) in zip(axes[:, 0], panels.items(), strict=True):
            _tradeoff(place, rows)
            place.set_title(" · ".join(names), loc="left", size=9.5)
        axes[-1, 0].set_xlabel("vision tokens a layer (executed average; equal ones side by side)")
        return save(figure, Path(path))


def tokens_per_layer(root: Path | str, path: Path | str) -> Path:
    """Vision tokens that entered each layer: the mean, and the middle 80 % of the samples.

    Methods whose numbers agree in every layer share a line.

    Args:
        root: A results folder; each budget is a panel, each experiment, model and benchmark a row.
        path: Where to; the ending says the format.

    Raises:
        FileNotFoundError: If the folder is missing.
        ValueError: If nothing in it can be drawn (see :func:`analysis.records.cells.load`).
    """
    by_group = groups([cell for cell in load(root) if cell.metric is not None])
    if not by_group:
        raise ValueError(f"no run under {root} has samples to draw")
    rows = {name: _budgets(cells) for name, cells in by_group.items()}
    columns = max(len(budgets) for budgets in rows.values())
    with matplotlib.rc_context(STYLE):
        figure, axes = _canvas(len(rows), columns, 4.0 if columns > 1 else WIDTH, 3.2)
        for places, (names, budgets) in zip(axes, rows.items(), strict=True):
            for place in places[len(budgets) :]:
                place.set_visible(False)
            style = looks([cell["method"] for cells in budgets.values() for cell in cells])
            for place, (budget, cells) in zip(places, budgets.items(), strict=False):
                _layers(place, cells, style)
                title = f"budget {budget}" if budget != "none" else "no budget"
                place.set_title(title, loc="left", size=9.5)
            shown = [place.get_legend_handles_labels() for place in places[: len(budgets)]]
            entries = {label: line for pair in shown for line, label in zip(*pair, strict=True)}
            places[len(budgets) - 1].legend(
                list(entries.values()), list(entries), frameon=False, fontsize=8.5,
                loc="upper left", bbox_to_anchor=(1.0, 1.0),
            )  # fmt: skip
            top = max(place.get_ylim()[1] for place in places[: len(budgets)])
            for place in places[: len(budgets)]:
                place.set_ylim(0, top)
            places[0].set_ylabel("vision tokens entering")
            places[0].annotate(
                " · ".join(names), (0, 1), (0, 26), "axes fraction", textcoords="offset points",
                weight="bold", size=9.5,
            )  # fmt: skip
        for place in axes.flat:
            place.set_xlabel("layer")
        return save(figure, Path(path))


def _canvas(
    rows: int, columns: int, width: float = WIDTH, height: float = HEIGHT
) -> tuple[Figure, np.ndarray]:
    figure = Figure(figsize=(columns * width, rows * height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False)


def _tradeoff(place: Axes, rows: Sequence[Row]) -> None:
    scale = 100.0 if all(0 <= row["accuracy"] <= 1 for row in rows) else 1.0
    name = rows[0]["metric"]
    place.set(xscale="log", ylabel=f"{name}, %" if scale == 100 else name)
    plain = [row for row in rows if row["method"] == "vanilla" and not row["image"]]
    lines: dict[str, list[Row]] = {}
    for row in rows:
        if row not in plain:
            lines.setdefault(_label(row), []).append(row)
    style = looks(row["method"] for line in lines.values() for row in line)
    ends = []
    for number, (label, line) in enumerate(sorted(lines.items())):
        line.sort(key=lambda row: row["executed_average"])
        look = style[line[0]["method"]]
        aside = 2 ** (0.05 * (number - (len(lines) - 1) / 2))
        x = np.array([row["executed_average"] for row in line]) * aside
        y, low, high = (
            np.array([row[end] for row in line]) * scale for end in ("accuracy", "low", "high")
        )
        reach = np.nan_to_num(np.stack([y - low, high - y]))
        place.errorbar(x, y, reach, capsize=2.5, elinewidth=1, markersize=5.5, **look)
        ends.append((float(x[-1]), float(y[-1]), label, look["color"]))
    for row in plain:
        _band(place, row, scale)
    reached = sorted(row["executed_average"] for line in lines.values() for row in line)
    asked = {row["nominal"] for line in lines.values() for row in line if row["nominal"] > 0}
    low, high = (reached[0] / ASIDE, reached[-1] * ASIDE) if reached else (1.0, 2.0)
    place.set_xlim(low, high)
    place.xaxis.set_major_locator(FixedLocator(_ticks(sorted(asked) or reached, low, high)))
    place.xaxis.set_minor_locator(NullLocator())
    place.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0f}"))
    place.grid(axis="y", color="0.92", lw=0.8)
    place.set_axisbelow(True)
    _label_ends(place, ends)


def _band(place: Axes, row: Row, scale: float) -> None:
    """Vanilla's accuracy and interval, from edge to edge."""
    place.axhspan(row["low"] * scale, row["high"] * scale, color=GREY, alpha=0.13, lw=0)
    place.axhline(row["accuracy"] * scale, color=BLACK, lw=1)
    place.annotate(
        f"vanilla, {row['executed_average']:.0f} tokens", (0, row["accuracy"] * scale), (4, 3),
        ("axes fraction", "data"), textcoords="offset points", color=BLACK, size=8.5,
    )  # fmt: skip


def _label(row: Row) -> str:
    """What a line is called: its method, and the control on the image where there is one."""
    return f"{row['method']}, {row['image']} image" if row["image"] else str(row["method"])


def _ticks(values: Sequence[float], low: float, high: float) -> list[float]:
    """The values, and powers of two around them, none printed over another."""
    kept: list[float] = []
    for tick in [*values, *(2.0**power for power in range(20))] if values else []:
        if low <= tick <= high and all(abs(np.log2(tick / other)) > 0.2 for other in kept):
            kept.append(tick)
    return kept


def _label_ends(place: Axes, ends: Sequence[tuple[float, float, str, str]]) -> None:
    """Name each line right of the panel, as near to its last point's height as there is room."""
    bottom, top = place.get_ylim()
    tall = top - bottom
    wanted = sorted(((y - bottom) / tall, x, label, colour) for x, y, label, colour in ends)
    heights = spread([height for height, *_ in wanted], APART)
    for (height, x, label, colour), free in zip(wanted, heights, strict=True):
        place.annotate(
            label, (x, bottom + height * tall), (1.03, free), "data", "axes fraction",
            color=colour, va="center", size=9, annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": colour, "lw": 0.6, "alpha": 0.4, "shrinkB": 4},
            zorder=1,
        )  # fmt: skip


def spread(heights: Sequence[float], gap: float) -> list[float]:
    """Ascending heights, moved as little as it takes to stand ``gap`` apart."""
    blocks: list[list[float]] = []
    for height in heights:
        blocks.append([height])
        while len(blocks) > 1 and _bottom(blocks[-1], gap) < _top(blocks[-2], gap) + gap:
            blocks[-2:] = [blocks[-2] + blocks[-1]]
    return [_bottom(block, gap) + gap * place for block in blocks for place in range(len(block))]


def _bottom(block: Sequence[float], gap: float) -> float:
    return sum(block) / len(block) - gap * (len(block) - 1) / 2


def _top(block: Sequence[float], gap: float) -> float:
    return sum(block) / len(block) + gap * (len(block) - 1) / 2


def _budgets(cells: Sequence[Cell]) -> dict[str, list[Cell]]:
    """Cells by budget; vanilla goes with every budget, alone only where there is no other."""
    budgets: dict[str, list[Cell]] = {}
    vanilla = [cell for cell in cells if cell["method"] == "vanilla"]
    for cell in cells:
        if cell["method"] != "vanilla":
            budgets.setdefault(cell["budget"], []).append(cell)
    return {name: [*vanilla, *own] for name, own in budgets.items()} or {"none": vanilla}


def _layers(place: Axes, cells: Sequence[Cell], style: Mapping[str, Mapping[str, Any]]) -> None:
    lines: list[tuple[np.ndarray, list[Cell]]] = []
    for cell in cells:
        counts = np.array(cell.samples["vision_tokens"].tolist(), dtype=float)
        shape = np.stack([counts.mean(0), *np.quantile(counts, (0.1, 0.9), axis=0)])
        same = next((members for other, members in lines if _together(shape, other)), None)
        if same is None:
            lines.append((shape, [cell]))
        else:
            same.append(cell)
    for (mean, low, high), members in lines:
        look = {**style[members[0]["method"]], "marker": "none"}
        label = " = ".join(" ".join(filter(None, (c["method"], c.variant))) for c in members)
        layers = np.arange(len(mean))
        place.plot(layers, mean, drawstyle="steps-mid", lw=1.6, label=label, **look)
        place.fill_between(layers, low, high, step="mid", color=look["color"], alpha=0.15, lw=0)
    place.xaxis.set_major_locator(MaxNLocator(integer=True))
    place.grid(axis="y", color="0.92", lw=0.8)
    place.set_axisbelow(True)


def _together(first: np.ndarray, second: np.ndarray) -> bool:
    """Whether two lines and their bands would print over each other."""
    return first.shape == second.shape and bool(np.abs(first - second).max() < 2)
