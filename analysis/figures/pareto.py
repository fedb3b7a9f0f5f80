"""Pareto front of accuracy against executed tokens: runs of a study, the best ones, controls.

A run is on the front if no run with fewer tokens is as accurate. The front takes the best of many
noisy numbers, so its accuracies are biased upward: repeated measurements on other questions are
shown as well. Knows nothing about models, nor about how the settings were chosen.
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
    """Runs of a study.

    Attributes:
        trials: All runs of the study, by executed average.
        front: Runs on the Pareto front.
        again: Run with the same settings on other questions, or None, for each run of the front.
        controls: Runs of other methods on the same questions.
    """

    trials: Sequence[RunResult]
    front: Sequence[RunResult]
    again: Sequence[RunResult | None]
    controls: Sequence[RunResult]


def read(root: Path | str, benchmark: str, method: str) -> Front:
    """Read the study in a folder.

    Args:
        root: Folder of the runs.
        benchmark: Benchmark on which the settings were chosen.
        method: Method whose settings were chosen.

    Raises:
        FileNotFoundError: If the folder is missing.
        ValueError: If no run of the method on the benchmark is finished.
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
            (other for other in others if alike(cell["config"], other["config"], ["benchmark"])),
            None,
        )
        for cell in front
    ]
    return Front(trials, front, again, [cell for cell in same if cell["method"] != method])


def pareto(cells: Sequence[RunResult]) -> list[RunResult]:
    """Runs on the Pareto front, fewest tokens first."""
    best, out = -1.0, []
    for cell in sorted(cells, key=lambda cell: (cell.executed, -_accuracy(cell))):
        if _accuracy(cell) > best:
            best = _accuracy(cell)
            out.append(cell)
    return out


def table(study: Front, settings: Sequence[str]) -> Table:
    """Terminal table of the Pareto front, fewest tokens first.

    Args:
        study: Runs of the study.
        settings: Settings to show, such as ``prefill.gamma``.
    """
    first = study.front[0]
    out = Table(
        title=f"Pareto front of {len(study.trials)} runs: {first['method']}, {first['model']}, "
        f"{first['benchmark']}, {first['n']} questions",
        box=box.SIMPLE_HEAD, pad_edge=False,
    )  # fmt: skip
    again = any(cell is not None for cell in study.again)
    heads = ["executed", f"{first['metric']}\n(95 %)"]
    heads += [*(setting.replace(".", "\n") for setting in settings), "FLOPs", "key"]
    heads += ["held out:\nexecuted", f"{first['metric']}\n(95 %)"] if again else []
    for head in heads:
        out.add_column(head, justify="right", no_wrap=True)
    for cell, other in zip(study.front, study.again, strict=True):
        values = [cell["config"][stage][name] for stage, name in (s.split(".") for s in settings)]
        row = [f"{cell.executed:.1f}", _score_text(cell), *(f"{value:.4g}" for value in values)]
        row += [f"{cell['flops_ratio']:.3f}", cell["key"]]
        if again:
            row += [f"{other.executed:.1f}", _score_text(other)] if other else ["", ""]
        out.add_row(*row)
    return out


def draw(study: Front, path: Path | str) -> Path:
    """Draw the front as a line, the other runs pale, and the controls, with 95 % intervals.

    The pale runs have no intervals.

    Args:
        study: Runs of the study.
        path: Output file; its suffix sets the format.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(DOUBLE, 3.6), layout="constrained")
        FigureCanvasAgg(figure)
        ax = figure.subplots()
        _points(ax, study)
        first = study.front[0]
        ax.set_title(f"{first['method']} · {first['model']} · {first['benchmark']}", loc="left")
        ax.set_xlabel("vision tokens per layer (executed average)")
        ax.set_ylabel(f"{first['metric']}, %")
        ax.legend(
            frameon=False, fontsize=SMALL, loc="upper left", bbox_to_anchor=(1.0, 1.0),
            handletextpad=0.4,
        )  # fmt: skip
        return save(figure, Path(path))


def _points(ax: Axes, study: Front) -> None:
    ax.set_xscale("log")
    method = study.front[0]["method"]
    colour, mark = look(method)["color"], look(method)["marker"]
    shown = [cell for cell in study.trials if cell not in study.front]
    ax.plot(
        [cell.executed for cell in shown], [100 * _accuracy(cell) for cell in shown], mark,
        ms=4.5, color=colour, alpha=0.35, mew=0, label=f"other trials ({len(shown)})", zorder=2,
    )  # fmt: skip
    _line(
        ax,
        study.front,
        f"{method}, Pareto front",
        color=colour,
        marker=mark,
        ms=5.5,
        lw=1.6,
        zorder=4,
    )
    again = sorted(filter(None, study.again), key=lambda cell: cell.executed)
    if again:
        _line(
            ax, again, "same settings, test questions", color=colour, marker=mark, ms=5.5,
            mfc="white", lw=1, ls=":", zorder=3,
        )  # fmt: skip
    methods: dict[str, list[RunResult]] = {}
    for cell in sorted(study.controls, key=lambda cell: cell.executed):
        if cell["method"] == "vanilla":
            label = f"vanilla, {cell.executed:.0f} tokens"
            ax.axhline(100 * _accuracy(cell), color=BLACK, lw=1, zorder=1, label=label)
        else:
            methods.setdefault(cell["method"], []).append(cell)
    for name, cells in methods.items():
        _line(ax, cells, name, **look(name), ms=5, lw=1, zorder=3)
    spent = [cell.executed for cell in (*study.trials, *(c for cs in methods.values() for c in cs))]
    low, high = min(spent) / 1.08, max(spent) * 1.08
    ax.set_xlim(low, high)
    ax.xaxis.set_major_locator(FixedLocator([tick for tick in TICKS if low <= tick <= high]))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0f}"))
    ax.grid(axis="y", color="0.92", lw=0.8)
    ax.set_axisbelow(True)


def _line(ax: Axes, cells: Sequence[RunResult], label: str, **look: Any) -> None:
    means = [mean_interval(cell.samples["score"], cell.samples["image"]) for cell in cells]
    errors = [[100 * (mean.value - mean.low) for mean in means]]
    errors += [[100 * (mean.high - mean.value) for mean in means]]
    ax.errorbar(
        [cell.executed for cell in cells], [100 * mean.value for mean in means], errors,
        capsize=2, elinewidth=0.8, label=label, **look,
    )  # fmt: skip


def _accuracy(cell: RunResult) -> float:
    return mean_interval(cell.samples["score"], cell.samples["image"]).value


def _score_text(cell: RunResult) -> str:
    mean = mean_interval(cell.samples["score"], cell.samples["image"])
    return f"{mean.value:.3f} [{mean.low:.3f}, {mean.high:.3f}]"
