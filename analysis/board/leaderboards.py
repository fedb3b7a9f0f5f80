"""Leaderboards of checked runs as plain rows: one for each model, benchmark and budget.

Texts and numbers are those of :mod:`analysis.tables`. Knows nothing about HTML and about files.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import isnan
from typing import Any

from markupsafe import Markup

from analysis.board.rows import (
    FLOOR,
    INTERVAL,
    KINDS,
    RANKED,
    REFERENCE,
    SHOWN,
    TITLES,
    Row,
    result_row,
    score_column,
)
from analysis.figures.points import points
from analysis.packs.agreement import grouped
from analysis.packs.shared_runs import SharedRun
from analysis.records.budgets import budget_label
from analysis.records.cells import RunResult, cell_order
from analysis.records.variants import variants
from analysis.report.naming import spelled
from analysis.report.plot import plot
from analysis.tables.sheets import sheet
from analysis.tables.summary import summary_of_cells

BOARD = "board"  # stands for the experiment, so that runs of all packs are compared


@dataclass(frozen=True)
class BudgetTable:
    """Runs at one budget, with the vanilla runs as the reference.

    Attributes:
        budget: Name of the budget in records.
        label: Text for the budget.
        parts: Title and rows of each kind that has rows, in the order of ``KINDS``.
    """

    budget: str
    label: str
    parts: list[tuple[str, list[Row]]]


@dataclass(frozen=True, eq=False)
class Leaderboard:
    """All runs of one model and one benchmark.

    Attributes:
        model: Name of the model.
        benchmark: Name of the benchmark, with the control on the image if there is one.
        title: Model and benchmark as papers spell them.
        file: Name for files and anchors.
        samples: Number of samples that every run answered.
        score: Head of the column of scores.
        heads: Heads of the other columns with numbers.
        origins: Which of the columns ``hardware`` and ``origin`` have several values.
        hardware: Hardware of all runs; empty if it differs.
        plot: Scores against executed tokens, as an SVG.
        reference: Score of vanilla as a share of the scale; None without vanilla.
        tables: One table per budget, the largest budget first.
        notes: Notes about the columns.
        cells: Runs, with ``board`` as their experiment.
    """

    model: str
    benchmark: str
    title: str
    file: str
    samples: int
    score: str
    heads: tuple[str, ...]
    origins: tuple[str, ...]
    hardware: str
    plot: Markup
    reference: float | None
    tables: list[BudgetTable]
    notes: tuple[str, ...]
    cells: list[RunResult]


def leaderboards(runs: Sequence[SharedRun]) -> list[Leaderboard]:
    """Leaderboards of runs that agree, sorted by model and benchmark."""
    ordered = sorted(runs, key=lambda run: cell_order(run.cell))
    return [_leaderboard(name, members) for name, members in grouped(ordered).items()]


def _leaderboard(name: tuple[str, str, str], runs: Sequence[SharedRun]) -> Leaderboard:
    model, benchmark, image = name
    cells = [
        replace(run.cell, variant=variant, record={**run.cell.record, "experiment": BOARD})
        for run, variant in zip(runs, _variants(runs), strict=True)
    ]
    frame = summary_of_cells(cells)
    shown, numbers = sheet(frame), frame.to_dict("records")
    low, high = _scale(numbers)
    rows = [
        result_row(run, cell, numbers[index], shown, index, (low, high))
        for index, (run, cell) in enumerate(zip(runs, cells, strict=True))
    ]
    ran = [cell for cell in cells if cell.metric is not None]
    drawn = [cell for cell in ran if cell.executed > 0]
    packs = {row.origin for row in rows}
    machines = {row.hardware for row in rows if row.kind != FLOOR}  # such a run used no machine
    vanilla = [row.bar[1] for row in rows if row.kind == REFERENCE and row.bar is not None]
    title = f"{spelled(model)} on {spelled(benchmark)}" + (f", {image} image" if image else "")
    label = f"Score against executed vision tokens: {title}"
    return Leaderboard(
        model=model,
        benchmark=f"{benchmark}, {image} image" if image else benchmark,
        title=title,
        file="-".join(filter(None, name)),
        samples=len(ran[0].samples) if ran else 0,
        score=shown.heads[score_column(shown)],
        heads=tuple(head for head in shown.heads if head.removesuffix(INTERVAL) in SHOWN),
        origins=("hardware",) * (len(machines) > 1) + ("origin",) * (len(packs) > 1),
        hardware=next(iter(machines)) if len(machines) == 1 else "",
        plot=plot(points(drawn, "tokens"), str(ran[0].metric), label) if drawn else Markup(""),
        reference=vanilla[0] if vanilla else None,
        tables=_tables(cells, rows, [entry["accuracy"] for entry in numbers]),
        notes=shown.notes,
        cells=cells,
    )


def _variants(runs: Sequence[SharedRun]) -> list[str]:
    """What distinguishes each run from the others of its method and budget: settings, or its pack.

    Empty for a run whose method and budget are unique.
    """
    same: dict[tuple[str, str], list[int]] = {}
    for index, run in enumerate(runs):
        same.setdefault((run.cell["method"], run.cell["budget"]), []).append(index)
    texts = [""] * len(runs)
    for indices in same.values():
        settings = variants([runs[index].cell["config"] for index in indices])
        for index, setting in zip(indices, settings, strict=True):
            repeated = settings.count(setting) > 1
            texts[index] = ", ".join(filter(None, [setting, runs[index].origin * repeated]))
    return texts


def _scale(rows: Sequence[Mapping[Any, Any]]) -> tuple[float, float]:
    """Lowest and highest end of all intervals."""
    ends = [row[name] for row in rows for name in ("low", "accuracy", "high")]
    known = [end for end in ends if not isnan(end)] or [0.0]
    return min(known), max(known)


def _tables(
    cells: Sequence[RunResult], rows: Sequence[Row], scores: Sequence[float]
) -> list[BudgetTable]:
    """One table per budget; the vanilla runs are the first rows of each."""
    reference = [row for row in rows if row.kind == REFERENCE]
    sizes = {
        cell["budget"]: cell.budget or 0.0
        for cell, row in zip(cells, rows, strict=True)
        if row.kind != REFERENCE
    } or {"none": 0.0}
    tables = []
    for budget in sorted(sizes, key=lambda name: -sizes[name]):
        here = [
            index
            for index, (cell, row) in enumerate(zip(cells, rows, strict=True))
            if cell["budget"] == budget and row.kind != REFERENCE
        ]
        # a run without a score comes last
        here.sort(key=lambda index: (isnan(scores[index]), -scores[index], rows[index].method))
        ranked = [scores[index] for index in here if rows[index].kind == RANKED]
        parts = {REFERENCE: reference}
        for index in here:
            row = rows[index]
            rank = 1 + ranked.index(scores[index]) if row.kind == RANKED else None
            parts.setdefault(row.kind, []).append(replace(row, rank=rank))
        tables.append(
            BudgetTable(
                budget=budget,
                label=_label(budget),
                parts=[(TITLES[kind], parts[kind]) for kind in KINDS if parts.get(kind)],
            )
        )
    return tables


def _label(budget: str) -> str:
    if budget == "none":
        return "No budget"
    noun = "of the vision tokens" if budget.startswith("s") else "vision tokens"
    return f"{budget_label(budget)} {noun} per layer"
