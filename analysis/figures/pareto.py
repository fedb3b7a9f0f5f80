"""The front of accuracy against executed tokens: a study's runs, the best of them, the controls.

A run is on the front if no other is as accurate with fewer tokens. The front is the best of many
noisy numbers, so its accuracies are too high by some of the noise: what was measured again on
other questions stands beside it. Knows nothing about models, nor about who chose the settings.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from rich import box
from rich.table import Table

from analysis.figures.style import BLACK, DOUBLE, SMALL, STYLE, look, save
from analysis.records.cells import RunResult, load
from analysis.records.variants import alike
from analysis.statistics.intervals import mean_interval

TICKS = (24, 32, 48, 64, 96, 128, 192, 288, 384, 576)


@dataclass(frozen=True, eq=False)
class Front:
    """A study as its runs tell it.

    Attributes:
        trials: All its runs, by executed average.
        front: Those that no other beats.
        again: Of each of the front, the run with its settings on other questions, if there is one.
        controls: Other methods on the same questions.
    """

    trials: Sequence[RunResult]
    front: Sequence[RunResult]
    again: Sequence[RunResult | None]
    controls: Sequence[RunResult]


def read(root: Path | str, benchmark: str, method: str) -> Front:
    """The study under a folder.

    Args:
        root: Where its runs are.
        benchmark: The questions that settings were chosen on.
        method: Whose settings.

    Raises:
        FileNotFoundError: If the folder is missing.
        ValueError: If no run of that method on these questions is finished.
    """
    cells = [cell for cell in load(root) if cell.metric is not None]
    same = [cell for cell in cells if cell["benchmark"] == benchmark]
    trials = sorted(
        (cell for cell in same if cell["method"] == method and cell.budget is None),
        key=lambda cell: cell.executed,
    )
    if not trials:
        raise ValueError(f"no run of {method} on {benchmark} is finished under {root}")
    front = pareto(trials)
    others = [cell for cell in cells if cell["benchmark"] != benchmark and cell["method"] == method]
    again = [
        next(
            (other for other in others if alike(own["config"], other["config"], ["benchmark"])),
            None,
        )
        for own in front
    ]
    return Front(trials, front, again, [cell for cell in same if cell["method"] != method])


def pareto(cells: Sequence[RunResult]) -> list[RunResult]:
    """The cells that no other matches in accuracy with fewer tokens, fewest tokens first."""
    best, out = -1.0, []
    for cell in sorted(cells, key=lambda cell: (cell.executed, -_accuracy(cell))):
        if _accuracy(cell) > best:
            best = _accuracy(cell)
            out.append(cell)
    return out


def table(found: Front, places: Sequence[str]) -> Table:
    """The front for the terminal, fewest tokens first.

    Args:
        found: The study.
        places: Settings to tell, as ``prefill.gamma``.
    """
    first = found.front[0]
    made = Table(
        title=f"The front of {len(found.trials)} runs: {first['method']}, {first['model']}, "
        f"{first['benchmark']}, {first['n']} questions",
        box=box.SIMPLE_HEAD, pad_edge=False,
    )  # fmt: skip
    again = any(cell is not None for cell in found.again)
    heads = ["executed", f"{first['metric']}\n(95 %)"]
    heads += [*(place.replace(".", "\n") for place in places), "FLOPs", "key"]
    heads += ["held out:\nexecuted", f"{first['metric']}\n(95 %)"] if again else []
    for head in heads:
        made.add_column(head, justify="right", no_wrap=True)
    for cell, other in zip(found.front, found.again, strict=True):
        values = [cell["config"][stage][name] for stage, name in (p.split(".") for p in places)]
        row = [f"{cell.executed:.1f}", _told(cell), *(f"{value:.4g}" for value in values)]
        row += [f"{cell['flops_ratio']:.3f}", cell["key"]]
        if again:
            row += [f"{other.executed:.1f}", _told(other)] if other else ["", ""]
        made.add_row(*row)
    return made


def draw(found: Front, path: Path | str) -> Path:
    """The front joined, every run pale, controls beside; 95 % intervals on all but the pale.

    Args:
        found: The study.
        path: Where to; the ending says the format.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(DOUBLE, 3.6), layout="constrained")
        FigureCanvasAgg(figure)
        place = figure.subplots()
        _points(place, found)
        first = found.front[0]
        place.set_title(f"{first['method']} · {first['model']} · {first['benchmark']}", loc="left")
        place.set_xlabel("vision tokens a layer (executed average)")
        place.set_ylabel(f"{first['metric']}, %")
        place.legend(
            frameon=False, fontsize=SMALL, loc="upper left", bbox_to_anchor=(1.0, 1.0),
            handletextpad=0.4,
        )  # fmt: skip
        return save(figure, Path(path))


def _points(place: Axes, found: Front) -> None:
    place.set_xscale("log")
    own = found.front[0]["method"]
    colour, mark = look(own)["color"], look(own)["marker"]
    shown = [cell for cell in found.trials if cell not in found.front]
    place.plot(
        [cell.executed for cell in shown], [100 * _accuracy(cell) for cell in shown], mark,
        ms=4.5, color=colour, alpha=0.35, mew=0, label=f"other trials ({len(shown)})", zorder=2,
    )  # fmt: skip
    _line(
        place, found.front, f"{own}, the front", color=colour, marker=mark, ms=5.5, lw=1.6, zorder=4
    )
    again = sorted(filter(None, found.again), key=lambda cell: cell.executed)
    if again:
        _line(
            place, again, "its settings, test questions", color=colour, marker=mark, ms=5.5,
            mfc="white", lw=1, ls=":", zorder=3,
        )  # fmt: skip
    methods: dict[str, list[RunResult]] = {}
    for cell in sorted(found.controls, key=lambda cell: cell.executed):
        if cell["method"] == "vanilla":
            told = f"vanilla, {cell.executed:.0f} tokens"
            place.axhline(100 * _accuracy(cell), color=BLACK, lw=1, zorder=1, label=told)
        else:
            methods.setdefault(cell["method"], []).append(cell)
    for name, cells in methods.items():
        _line(place, cells, name, **look(name), ms=5, lw=1, zorder=3)
    spent = [cell.executed for cell in (*found.trials, *(c for cs in methods.values() for c in cs))]
    low, high = min(spent) / 1.08, max(spent) * 1.08
    place.set_xlim(low, high)
    place.xaxis.set_major_locator(FixedLocator([tick for tick in TICKS if low <= tick <= high]))
    place.xaxis.set_minor_locator(NullLocator())
    place.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0f}"))
    place.grid(axis="y", color="0.92", lw=0.8)
    place.set_axisbelow(True)


def _line(place: Axes, cells: Sequence[RunResult], label: str, **look: Any) -> None:
    found = [mean_interval(cell.samples["score"], cell.samples["image"]) for cell in cells]
    reach = [[100 * (each.value - each.low) for each in found]]
    reach += [[100 * (each.high - each.value) for each in found]]
    place.errorbar(
        [cell.executed for cell in cells], [100 * each.value for each in found], reach,
        capsize=2, elinewidth=0.8, label=label, **look,
    )  # fmt: skip


def _accuracy(cell: RunResult) -> float:
    return mean_interval(cell.samples["score"], cell.samples["image"]).value


def _told(cell: RunResult) -> str:
    found = mean_interval(cell.samples["score"], cell.samples["image"])
    return f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]"
