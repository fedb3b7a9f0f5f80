"""Layouts (rows and columns) of the paper's tables, from ``analysis/reference/tables.yaml``.

The layout for another model has the same rows, and that model's benchmarks as columns. Knows
nothing about results.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import yaml

from analysis.published.matching import Index, measures_of, published_count, shown_measure
from analysis.published.numbers import REFERENCE
from mustdrop.budget import Budget

LAYOUTS = REFERENCE / "tables.yaml"
Measure = tuple[str, str, str]


@dataclass(frozen=True)
class Line:
    """Row of a layout.

    Attributes:
        budget: Name of our budget, such as ``t64`` or ``s11.11``, or the paper's if we have none.
        method: Name of our method; None if we have none.
        published: Name of the method in the published numbers; None: not published.
        tokens: Budget in the published numbers, in tokens; None: a share.
    """

    budget: str
    method: str | None = None
    published: str | None = None
    tokens: float | None = None


@dataclass(frozen=True)
class Column:
    """Column of a layout.

    Attributes:
        name: Column head.
        benchmark: Name of our benchmark; None if we have none.
        published: Benchmark, metric and split that papers report; None: not published.
    """

    name: str
    benchmark: str | None
    published: Measure | None


@dataclass(frozen=True)
class TablePart:
    """Rows and columns of a table for one model.

    Attributes:
        model: Name of our model; None if we have none.
        published_model: Name of the model in papers; None: not published.
        lines: Rows, budget by budget.
        columns: Columns, one per benchmark.
        experiment: Name of the preset whose runs fill the part.
        relative: Whether the table has the mean over benchmarks, relative to vanilla.
        note: Note for the reader, such as the reason why there is no model.
        metric: Score of a judge that the part shows; None: the score that papers report first.
    """

    model: str | None
    published_model: str | None
    lines: tuple[Line, ...]
    columns: tuple[Column, ...]
    experiment: str
    relative: bool = False
    note: str = ""
    metric: str | None = None


@dataclass(frozen=True)
class Layout:
    """A table: name, title, parts, and whether it includes costs."""

    name: str
    title: str
    parts: tuple[TablePart, ...]
    costs: bool = False


@cache
def read() -> Mapping[str, Any]:
    """Content of the layouts file."""
    return yaml.safe_load(LAYOUTS.read_text())


def layouts() -> dict[str, Layout]:
    """Layouts of the paper's tables, by name."""
    return {
        name: Layout(
            name,
            table["title"],
            tuple(_part(part, name) for part in table["parts"]),
            "costs" in table,
        )
        for name, table in read()["tables"].items()
    }


@cache
def typed_budget(name: str) -> str:
    """Budget of this name as the command line has it: ``t64``, ``320/2880`` or ``22.2%``."""
    shares = {_name(budget): budget for budget in read()["shares"]}
    return shares.get(name, f"{name.removeprefix('s')}%" if name.startswith("s") else name)


def _name(budget: str) -> str:
    """Name of a budget that is written as on the command line."""
    parsed = Budget.parse(budget)
    return "none" if parsed is None else parsed.name


def threshold(method: str) -> tuple[str, str | None] | None:
    """Threshold that must be calibrated before a method runs at a budget; None: no threshold.

    Returns:
        The config field that is searched, and the override that fixes another field (or None).
    """
    entry = read()["thresholds"].get(method)
    return None if entry is None else (entry["field"], entry["fixed"])


def uncalibrated() -> Sequence[str]:
    """Benchmarks without a calibration split."""
    return read()["uncalibrated"]


def for_model(part: TablePart, model: str, benchmarks: Sequence[str]) -> TablePart:
    """Rows of the part for another model with its own benchmarks and no published numbers."""
    lines = tuple(Line(line.budget, line.method) for line in part.lines)
    columns = tuple(_column(benchmark, part.metric) for benchmark in benchmarks)
    relative, metric = part.relative, part.metric
    return TablePart(model, None, lines, columns, part.experiment, relative, metric=metric)


def with_methods(
    part: TablePart, ran: Sequence[tuple[str, str]], names: Mapping[str, str], numbers: Index
) -> TablePart:
    """Add a row for every budget and method that ran and has no row yet.

    Args:
        part: Part of a table of the paper.
        ran: Budgets and methods that ran.
        names: Names of our methods in papers.
        numbers: Published numbers.
    """
    have = {(line.budget, line.method) for line in part.lines}
    lines = list(part.lines)
    for budget, method in ran:
        if (budget, method) in have:
            continue
        model = part.published_model
        count = None if model is None else published_count(numbers, model, budget)
        known = None if count is None else names.get(method)
        new = Line(budget, method, known, count if known else None)
        indices = [index for index, line in enumerate(lines) if line.budget == budget]
        smaller = [index for index, line in enumerate(lines) if _above(budget, line.budget)]
        lines.insert(indices[-1] + 1 if indices else min(smaller, default=len(lines)), new)
        have.add((budget, method))
    return replace(part, lines=tuple(lines))


def _above(budget: str, other: str) -> bool:
    """Whether a budget is above another one of the same kind, a count or a share."""
    if budget[0] != other[0] or budget[0] not in "ts":
        return False
    return float(budget[1:]) > float(other[1:])


def _part(part: Mapping[str, Any], table: str) -> TablePart:
    metric = part.get("metric")
    columns = [_column(name, metric) for name in part.get("columns", ())]
    for benchmark, metric, split in part.get("published_columns", ()):
        columns.append(Column(f"{benchmark} {metric}", None, (benchmark, metric, split)))
    return TablePart(
        part.get("model"),
        part.get("published_model"),
        tuple(map(_line, part["rows"])),
        tuple(columns),
        part.get("experiment", table),
        part.get("relative", False),
        part.get("absent") or part.get("note", ""),
        metric,
    )


def _line(row: Mapping[str, Any]) -> Line:
    return Line(**{**row, "budget": _name(row["budget"])}) if "method" in row else Line(**row)


def _column(benchmark: str, metric: str | None) -> Column:
    measures = measures_of(benchmark, metric) if metric else [shown_measure(benchmark)]
    measure = measures[0] if measures else None
    return Column(benchmark, benchmark, measure.published if measure else None)
