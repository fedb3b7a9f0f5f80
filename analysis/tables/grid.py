"""The cells of a layout, filled from runs: ours, its interval, its counts, and what is published.

One row a cell, whether it ran or not. Knows nothing about how a table looks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan, nan
from statistics import fmean
from typing import Any

import pandas as pd

from analysis.published.bands import NOTHING, Band, Index, index
from analysis.published.matching import located, names, of, told
from analysis.published.numbers import published
from analysis.records.cells import RunResult, agree
from analysis.statistics.intervals import Interval, mean_interval
from analysis.tables.commands import calibration, command
from analysis.tables.layouts import Column, Layout, Line, TablePart, embedded, layouts, with_methods

RELATIVE = "relative average"
STATES = ("measured", "floor", "missing", "several", "absent")


@dataclass(frozen=True)
class Filled:
    """A part of a table with its cells.

    Attributes:
        part: Its rows and columns.
        cells: A row per cell, in the order of the lines, columns within: see :func:`fill`.
        runs: The run behind each measured line and benchmark: (method, budget, benchmark).
        limits: By benchmark, the samples that this model's runs were limited to.
    """

    part: TablePart
    cells: pd.DataFrame
    runs: dict[tuple[str, str, str], RunResult]
    limits: dict[str, int | None]


def fill(name: str, cells: Sequence[RunResult]) -> list[Filled]:
    """A table of the paper filled from runs; models of the runs that it has not come first.

    Every cell has: table, model, method, budget, benchmark; state (one of :data:`STATES`); ours,
    low, high on the papers' scale, n, available, metric, interval; executed_average, matched
    (within 1 % of its budget), floor; paper, the paper's own number; band_low, band_high,
    band_values, band_independent, band_sources, verdict; and for a missing cell calibration and
    command, the lines that fill it.

    Args:
        name: ``table1`` and so on.
        cells: Finished runs; those on another image are left out.

    Raises:
        ValueError: If there is no such table.
    """
    known = layouts()
    if name not in known:
        raise ValueError(f"table must be one of {', '.join(known)}, got {name!r}")
    layout, plain = known[name], [cell for cell in cells if cell.image is None]
    numbers = index(published().to_dict("records"))
    return [_filled(layout, part, plain, numbers) for part in _parts(layout, plain)]


def _parts(layout: Layout, cells: Sequence[RunResult]) -> list[TablePart]:
    """The paper's parts, each with rows for what ran beside its methods, after those of others."""
    paper = [part for part in layout.parts if part.model]
    others = dict.fromkeys(
        cell["model"] for cell in cells if cell["model"] not in {part.model for part in paper}
    )
    parts = []
    for model in others if paper else ():
        benchmarks = dict.fromkeys(c["benchmark"] for c in cells if c["model"] == model)
        parts.append(embedded(paper[0], model, list(benchmarks)))
    made = []
    for part in (*parts, *layout.parts):
        ran = dict.fromkeys(
            (cell["budget"], cell["method"])
            for cell in cells
            if part.model == cell["model"] and cell["experiment"] == layout.name
        )
        made.append(with_methods(part, list(ran), names("method")))
    return made


def _filled(layout: Layout, part: TablePart, cells: Sequence[RunResult], numbers: Index) -> Filled:
    runs, rows = {}, []
    limits = {
        cell["benchmark"]: cell["limit"] for cell in cells if cell["model"] == part.model
    }  # of the last one, where they differ
    for line in part.lines:
        for column in part.columns:
            found = _runs(layout, part, line, column, cells)
            row = _row(part, line, column, found, numbers)
            where = (line.method or "", line.budget, column.benchmark or "")
            if row["state"] == "measured":
                runs[where] = found[0]
            if row["state"] == "missing" and part.model:
                row["calibration"] = "\n".join(calibration(part.model, [where]))
                row["command"] = "\n".join(command(layout.name, part.model, [where], limits))
            rows.append({"table": layout.name, **row})
    frame = pd.DataFrame(rows)
    if part.relative:
        frame = pd.concat([frame, _relative(frame)], ignore_index=True)
    return Filled(part, frame, runs, limits)


def _runs(
    layout: Layout, part: TablePart, line: Line, column: Column, cells: Sequence[RunResult]
) -> list[RunResult]:
    """The runs of a cell: of this table's own experiment, if there are; one run counts once."""
    wanted = part.model, line.method, line.budget, column.benchmark
    found = [
        cell
        for cell in cells
        if wanted == (cell["model"], cell["method"], cell["budget"], cell["benchmark"])
    ]
    found = [cell for cell in found if cell["experiment"] == layout.name] or found
    longest = {cell["key"]: cell for cell in sorted(found, key=lambda cell: cell["n"])}
    return list(longest.values())


def _row(
    part: TablePart, line: Line, column: Column, found: Sequence[RunResult], numbers: Index
) -> dict[str, Any]:
    row: dict[str, Any] = {
        "model": part.model or part.published_model,
        "method": line.method or line.published,
        "budget": line.budget,
        "benchmark": column.name,
        "state": "absent" if part.model is None else "missing",
        **dict.fromkeys(("ours", "low", "high"), nan),
        **{"n": 0, "available": None, "metric": None, "interval": "none"},
        **{"executed_average": nan, "matched": None, "floor": nan},
        **{"calibration": "", "command": "", "variants": ""},
    }
    metric, comparable = None, True
    if len(found) > 1:
        row |= {"state": "several", "variants": "; ".join(cell.variant for cell in found)}
    elif found and found[0].metric is None:
        row |= {"state": "floor", "floor": float(found[0]["floor"])}
    elif found:
        cell = found[0]
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
            "matched": agree(cell.executed, cell.budget) if cell.budget else None,
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


def measured(cell: RunResult) -> tuple[str, float, Interval]:
    """Metric, factor to the papers' scale and score of a run.

    It is the metric that papers report, if the run has it whole: from its samples, with an
    interval, else from its record, without. A run on fewer samples has no such sum, so there the
    samples' own score stands for it.
    """
    wanted = told(cell["benchmark"])
    assert cell.metric is not None
    if wanted is not None and wanted.metric != cell.metric:
        whole = cell.record.get("available") == cell["n"]
        if whole and wanted.metric in cell["metrics"]:
            value = float(cell["metrics"][wanted.metric])
            return wanted.metric, wanted.factor, Interval(value, nan, nan, "none", cell["n"])
    score = mean_interval(cell.samples["score"], cell.samples["image"])
    known = of(cell["benchmark"], cell.metric)
    scale = known[0].factor if known else (100.0 if 0 <= score.value <= 1 else 1.0)
    return cell.metric, scale, score


def _published(
    part: TablePart, line: Line, column: Column, metric: str | None, numbers: Index
) -> tuple[Band, float, bool]:
    """The band, the paper's number, and whether our metric is the same thing."""
    assert part.published_model and line.published and column.published
    model, method = part.published_model, line.published
    band, paper = located(numbers, model, method, line.tokens, column.published)
    comparable = metric is None or column.benchmark is None
    for one in of(column.benchmark or "", metric or ""):
        other, _ = located(numbers, model, method, line.tokens, one.published)
        if one.comparable and other.values:
            return other, paper, True
    return band, paper, comparable


def _relative(cells: pd.DataFrame) -> pd.DataFrame:
    """Of every line the mean over benchmarks of its score as a share of vanilla's, in percent."""
    rows = []
    vanilla = cells[cells["method"] == "vanilla"].set_index("benchmark")
    lines = cells.groupby(["budget", "method"], sort=False)
    for _, line in lines:
        row = {**line.iloc[0].to_dict(), "benchmark": RELATIVE, "metric": None, "verdict": ""}
        row |= {name: nan for name in ("low", "high", "executed_average", "floor")}
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
        rows.append({**row, "calibration": "", "command": "", "variants": ""})
    return pd.DataFrame(rows)
