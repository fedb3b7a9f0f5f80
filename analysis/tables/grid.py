"""Cells of a layout filled from runs: score, interval, counts, and the published numbers.

There is one row per cell, whether it ran or not. Knows nothing about the layout of a table.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan, nan
from statistics import fmean
from typing import Any

import pandas as pd

from analysis.published.bands import NOTHING, Band, Index, index
from analysis.published.matching import located, measures_of, names, shown_measure
from analysis.published.numbers import published
from analysis.records.cells import RunResult, agree, judged
from analysis.records.judgements import by_judge, on_scale_of_five
from analysis.statistics.intervals import Interval, mean_interval
from analysis.tables.commands import calibration, command
from analysis.tables.layouts import (
    Column,
    Layout,
    Line,
    TablePart,
    for_model,
    layouts,
    with_methods,
)

RELATIVE = "relative average"
SLOTS = ("cells", "off_grid", "off_grid_average")
STATES = ("measured", "floor", "missing", "several", "unjudged", "absent")


@dataclass(frozen=True)
class Filled:
    """Part of a table with its cells.

    Attributes:
        part: Rows and columns of the part.
        cells: Table with one row per cell, line by line: see :func:`fill`.
        runs: Run of each measured cell, by (method, budget, benchmark).
        limits: Sample limit of this model's runs, by benchmark.
    """

    part: TablePart
    cells: pd.DataFrame
    runs: dict[tuple[str, str, str], RunResult]
    limits: dict[str, int | None]


def fill(name: str, cells: Sequence[RunResult]) -> list[Filled]:
    """Fill a table of the paper from runs; parts for models that the paper lacks are first.

    Columns of a cell: table, model, method, budget, benchmark; state (one of :data:`STATES`); ours,
    low, high on the papers' scale, n, available, metric, interval; executed_average, matched
    (within 1 % of its budget), cells and off_grid (numbers of a prompt's vision tokens that show a
    cell and that show none, before any stage), off_grid_average (part of the executed average that
    shows no cell), floor; paper (number of the paper itself); band_low, band_high, band_values,
    band_independent, band_sources, verdict; calibration and command (for a missing
    cell, the command lines that fill it), folder (of a run that no judge has read).

    Args:
        name: Name of the table, such as ``table1``.
        cells: Finished runs; runs with an image control are left out.

    Raises:
        ValueError: If there is no such table.
    """
    known = layouts()
    if name not in known:
        raise ValueError(f"table must be one of {', '.join(known)}, got {name!r}")
    layout, plain = known[name], [cell for cell in cells if cell.image is None]
    numbers = index(published().to_dict("records"))
    parts = _parts(layout, plain, numbers)
    return [_filled(layout, part, plain, numbers) for part in parts]


def _parts(layout: Layout, cells: Sequence[RunResult], numbers: Index) -> list[TablePart]:
    """Parts for other models, then the paper's parts; each gets rows for all methods that ran."""
    paper = [part for part in layout.parts if part.model]
    others = dict.fromkeys(
        cell["model"] for cell in cells if cell["model"] not in {part.model for part in paper}
    )
    parts = []
    for model in others if paper else ():
        runs = [cell for cell in cells if cell["model"] == model]
        benchmarks = dict.fromkeys(cell["benchmark"] for cell in runs)
        experiments = {cell["experiment"] for cell in runs}
        alike = [part for part in paper if part.experiment in experiments] or paper[:1]
        parts += [for_model(part, model, list(benchmarks)) for part in alike]
    extended = []
    for part in (*parts, *layout.parts):
        ran = dict.fromkeys(
            (cell["budget"], cell["method"])
            for cell in cells
            if part.model == cell["model"] and cell["experiment"] == part.experiment
        )
        extended.append(with_methods(part, list(ran), names("method"), numbers))
    return extended


def _filled(layout: Layout, part: TablePart, cells: Sequence[RunResult], numbers: Index) -> Filled:
    """Fill all cells of a part."""
    runs, rows = {}, []
    limits = {
        cell["benchmark"]: cell["limit"] for cell in cells if cell["model"] == part.model
    }  # of the last run, if they differ
    for line in part.lines:
        for column in part.columns:
            matches = _runs(part, line, column, cells)
            row = _row(part, line, column, matches, numbers)
            position = (line.method or "", line.budget, column.benchmark or "")
            if row["state"] == "measured":
                runs[position] = matches[0]
            if row["state"] == "missing" and part.model:
                row["calibration"] = "\n".join(calibration(part.model, [position]))
                row["command"] = "\n".join(command(part.experiment, part.model, [position], limits))
            rows.append({"table": layout.name, **row})
    frame = pd.DataFrame(rows)
    if part.relative:
        frame = pd.concat([frame, _relative(frame)], ignore_index=True)
    return Filled(part, frame, runs, limits)


def _runs(
    part: TablePart, line: Line, column: Column, cells: Sequence[RunResult]
) -> list[RunResult]:
    """Distinct runs of a cell, from the part's experiment if it has any."""
    wanted = part.model, line.method, line.budget, column.benchmark
    matches = [
        cell
        for cell in cells
        if wanted == (cell["model"], cell["method"], cell["budget"], cell["benchmark"])
    ]
    matches = [cell for cell in matches if cell["experiment"] == part.experiment] or matches
    longest = {cell["key"]: cell for cell in sorted(matches, key=lambda cell: cell["n"])}
    return list(longest.values())


def _row(
    part: TablePart, line: Line, column: Column, runs: Sequence[RunResult], numbers: Index
) -> dict[str, Any]:
    """Make the row of one cell from its runs and the published numbers."""
    row: dict[str, Any] = {
        "model": part.model or part.published_model,
        "method": line.method or line.published,
        "budget": line.budget,
        "benchmark": column.name,
        "state": "absent" if part.model is None else "missing",
        **dict.fromkeys(("ours", "low", "high"), nan),
        **{"n": 0, "available": None, "metric": None, "interval": "none"},
        **{"executed_average": nan, "matched": None, "floor": nan, "calibrated_on": ""},
        **dict.fromkeys(SLOTS, nan),
        **{"calibration": "", "command": "", "variants": "", "folder": ""},
    }
    metric, comparable = None, True
    cell = _scored(runs[0], part.metric) if len(runs) == 1 else None
    if len(runs) > 1:
        row |= {"state": "several", "variants": "; ".join(cell.variant for cell in runs)}
    elif runs and runs[0].metric is None:
        row |= {"state": "floor", "floor": runs[0]["floor"]}
        row["calibrated_on"] = runs[0].calibrated_on
    elif runs and cell is None:
        row |= {"state": "unjudged", "folder": runs[0]["folder"]}
    elif cell is not None:
        metric, factor, score = measured(cell)
        row |= {
            "state": "measured",
            "ours": score.value * factor,
            "low": score.low * factor,
            "high": score.high * factor,
            "n": score.n,
            "available": cell.record.get("available"),
            "metric": metric,
            "interval": score.method,
            "executed_average": cell.executed,
            "calibrated_on": cell.calibrated_on,
            "matched": agree(cell.executed, cell.budget) if cell.budget else None,
            **(cell.record.get("slots") or {}),
        }
    band, paper = NOTHING, nan
    if part.published_model and line.published and column.published:
        band, paper, comparable = _published(part, line, column, metric, numbers)
    verdict = ""
    if row["state"] == "measured":
        verdict = band.judge(row["ours"], row["low"], row["high"])
        if band.values and not comparable:
            verdict = "not comparable"
    return {
        **row,
        "paper": paper,
        **{f"band_{name}": part for name, part in vars(band).items()},
        "verdict": verdict,
    }


def _scored(cell: RunResult, metric: str | None) -> RunResult | None:
    """The run with the score that a part shows; None if no judge has read it."""
    return cell if metric is None else judged(cell, metric)


def measured(cell: RunResult) -> tuple[str, float, Interval]:
    """Metric of a run, factor to the papers' scale, and score with its interval.

    The metric is the one that papers report, if the run has it: from the samples, with an interval,
    or from the record, without an interval. A run on fewer samples has no such total in its record;
    the score of its samples is used instead. A judge's score is always that of the samples.
    """
    wanted = shown_measure(cell["benchmark"])
    assert cell.metric is not None
    if wanted is not None and wanted.metric != cell.metric and not by_judge(cell.metric):
        whole = cell.record.get("available") == cell["n"]
        if whole and wanted.metric in cell["metrics"]:
            value = float(cell["metrics"][wanted.metric])
            return wanted.metric, wanted.factor, Interval(value, nan, nan, "none", cell["n"])
    score = mean_interval(cell.samples["score"], cell.samples["image"])
    known = measures_of(cell["benchmark"], cell.metric)
    share = 0 <= score.value <= 1 and not on_scale_of_five(cell.metric)
    scale = known[0].factor if known else 100.0 if share else 1.0
    return cell.metric, scale, score


def _published(
    part: TablePart, line: Line, column: Column, metric: str | None, numbers: Index
) -> tuple[Band, float, bool]:
    """Published band, number of the paper, and whether our metric is comparable to them."""
    assert part.published_model and line.published and column.published
    model, method = part.published_model, line.published
    band, paper = located(numbers, model, method, line.tokens, column.published)
    comparable = metric is None or column.benchmark is None
    for measure in measures_of(column.benchmark or "", metric or ""):
        other, _ = located(numbers, model, method, line.tokens, measure.published)
        if measure.comparable and other.values:
            return other, paper, True
    return band, paper, comparable


def _relative(cells: pd.DataFrame) -> pd.DataFrame:
    """Mean over benchmarks of each line's score relative to vanilla, in percent."""
    rows = []
    vanilla = cells[cells["method"] == "vanilla"].set_index("benchmark")
    lines = cells.groupby(["budget", "method"], sort=False)
    for _, line in lines:
        row = {**line.iloc[0].to_dict(), "benchmark": RELATIVE, "metric": None, "verdict": ""}
        row |= {name: nan for name in ("low", "high", "executed_average", "floor", *SLOTS)}
        row |= {"interval": "none", "matched": None, "available": len(line)}
        row |= {f"band_{name}": part for name, part in vars(NOTHING).items()}
        for name in ("ours", "paper"):
            shares = [
                100 * cell[name] / vanilla.loc[cell["benchmark"], name]
                for cell in line.to_dict("records")
                if not isnan(cell[name]) and not isnan(vanilla.loc[cell["benchmark"], name])
                and vanilla.loc[cell["benchmark"], name]
            ]  # fmt: skip
            row[name] = fmean(shares) if shares else nan
            if name == "ours":
                row["n"] = len(shares)
        row["state"] = "measured" if row["n"] else ("absent" if row["state"] == "absent" else "–")
        rows.append({**row, **dict.fromkeys(("calibration", "command", "variants", "folder"), "")})
    return pd.DataFrame(rows)
