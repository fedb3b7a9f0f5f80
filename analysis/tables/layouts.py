"""The layouts of the paper's tables, from ``analysis/reference/tables.yaml``: rows and columns.

A layout of runs on another model is the paper's with that model's benchmarks as columns. Knows
nothing about results.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import yaml

from analysis.published.matching import told
from analysis.published.numbers import REFERENCE

LAYOUTS = REFERENCE / "tables.yaml"
Measure = tuple[str, str, str]


@dataclass(frozen=True)
class Line:
    """A row of a layout.

    Attributes:
        budget: Ours, such as ``t64``, or the paper's where we have none.
        method: Ours; None where we have none.
        published: The method as published numbers call it; None: nothing is published.
        tokens: The budget as published numbers count it; None: a share.
    """

    budget: str
    method: str | None = None
    published: str | None = None
    tokens: float | None = None


@dataclass(frozen=True)
class Column:
    """A column of a layout.

    Attributes:
        name: Its head.
        benchmark: Ours; None where we have none.
        published: Benchmark, metric and split of what papers report; None: nothing.
    """

    name: str
    benchmark: str | None
    published: Measure | None


@dataclass(frozen=True)
class TablePart:
    """The rows and columns about one model.

    Attributes:
        model: Ours; None where we have none.
        published_model: As papers spell it; None: nothing is published about it.
        lines: Rows, budget by budget.
        columns: Of benchmarks.
        relative: Whether the mean over benchmarks, relative to vanilla, is told.
        note: What a reader must know; why there is no model, if there is none.
    """

    model: str | None
    published_model: str | None
    lines: tuple[Line, ...]
    columns: tuple[Column, ...]
    relative: bool = False
    note: str = ""


@dataclass(frozen=True)
class Layout:
    """A table: its name, which is its experiment's too, title, parts, whether it tells costs."""

    name: str
    title: str
    parts: tuple[TablePart, ...]
    costs: bool = False


@cache
def read() -> Mapping[str, Any]:
    """The file as it is."""
    return yaml.safe_load(LAYOUTS.read_text())


def layouts() -> dict[str, Layout]:
    """The paper's tables by name."""
    return {
        name: Layout(name, table["title"], tuple(map(_part, table["parts"])), "costs" in table)
        for name, table in read()["tables"].items()
    }


def threshold(method: str) -> tuple[str, str | None] | None:
    """What must be calibrated before a method runs at a budget; None: nothing.

    Returns:
        The field that is searched, and an override that fixes another for it, or None.
    """
    found = read()["thresholds"].get(method)
    return None if found is None else (found["field"], found["fixed"])


def uncalibrated() -> Sequence[str]:
    """Benchmarks without a split to choose thresholds on."""
    return read()["uncalibrated"]


def embedded(part: TablePart, model: str, benchmarks: Sequence[str]) -> TablePart:
    """The same rows for another model, on its own benchmarks; nothing is published about it."""
    lines = tuple(Line(line.budget, line.method) for line in part.lines)
    return TablePart(model, None, lines, tuple(map(_column, benchmarks)), part.relative)


def with_methods(
    part: TablePart, ran: Sequence[tuple[str, str]], names: Mapping[str, str]
) -> TablePart:
    """The part with a row more for every budget and method that ran and has none.

    Args:
        part: Of the paper.
        ran: Budgets and methods.
        names: Methods as papers spell them.
    """
    have = {(line.budget, line.method) for line in part.lines}
    lines = list(part.lines)
    for budget, method in ran:
        if (budget, method) in have:
            continue
        count = budget.removeprefix("t")
        known = names.get(method) if part.published_model and count.isdigit() else None
        made = Line(budget, method, known, float(count) if known else None)
        places = [place for place, line in enumerate(lines) if line.budget == budget]
        lines.insert(places[-1] + 1 if places else len(lines), made)
        have.add((budget, method))
    return replace(part, lines=tuple(lines))


def _part(part: Mapping[str, Any]) -> TablePart:
    columns = [_column(name) for name in part.get("columns", ())]
    for benchmark, metric, split in part.get("published_columns", ()):
        columns.append(Column(f"{benchmark} {metric}", None, (benchmark, metric, split)))
    return TablePart(
        part.get("model"),
        part.get("published_model"),
        tuple(Line(**line) for line in part["rows"]),
        tuple(columns),
        part.get("relative", False),
        part.get("absent") or part.get("note", ""),
    )


def _column(benchmark: str) -> Column:
    measure = told(benchmark)
    return Column(benchmark, benchmark, measure.published if measure else None)
