"""The page's first sight: the summary with what its columns are sorted by, and what was run.

Words and numbers are those of :mod:`analysis.tables`. Knows nothing about samples.
"""

from collections.abc import Sequence
from typing import Any

from analysis.records.cells import RunResult
from analysis.report.marks import look
from analysis.report.naming import each, keys, number
from analysis.report.tracing import Traces
from analysis.tables.sheets import sheet
from analysis.tables.summary import summary_of_cells

# Columns of the summary, by their heads in the sheet, and what they are sorted by.
ORDERS = {
    "paper average": "paper_average", "executed average": "executed_average",
    "FLOPs": "flops_ratio", "KV cache": "kv_bytes", "s per sample": "seconds",
    "target recall": "target_recall",
}  # fmt: skip


def summary_table(cells: Sequence[RunResult]) -> dict[str, Any]:
    """The sheet of :mod:`analysis.tables`, with the arm of each row and what it is sorted by."""
    frame = summary_of_cells(cells)
    shown = sheet(frame)
    rows = frame.to_dict("records")
    ran = [cell for cell in cells if cell.metric is not None]
    arms = {id(cell): key for cell, key in zip(ran, keys(ran), strict=True)}
    return {
        "title": shown.title,
        "heads": shown.heads,
        "notes": shown.notes,
        "rows": [
            {
                "arm": arms.get(id(cell)),
                "look": look(cell["method"]),
                "cells": texts,
                "order": [
                    _order(row, head, text) for head, text in zip(shown.heads, texts, strict=True)
                ],
            }
            for cell, row, texts in zip(cells, rows, shown.rows, strict=True)
        ],
    }


def _order(row: dict[Any, Any], head: str, text: str) -> float | str | None:
    """What a row is sorted by in a column of the sheet: a number where there is one."""
    first, _, interval = head.partition(" [")
    if first.startswith("Δ "):
        name = f"vs_{first[2:]}"
    else:
        name = "accuracy" if interval else ORDERS.get(first, first)
    if name == "budget":
        digits = str(row[name])[1:]
        return float(digits) if digits.replace(".", "", 1).isdigit() else None
    value = row.get(name, text)
    return number(value) if isinstance(value, int | float) else str(value)


def about(
    cells: Sequence[RunResult],
    arms: Sequence[dict[str, Any]],
    shown: int,
    every: int,
    traces: Traces,
) -> list[tuple[str, str]]:
    """What the page says of its runs, as (what, words)."""
    traced = {place for arm in arms for place in arm["traces"]}
    tracing = [arm for arm in arms if arm["traces"]]
    told = f"{len(traced)} of {shown} samples, in {len(tracing)} of {len(arms)} arms"
    if traced and not traces.pictures:
        told += "; ledgers alone: no picture and no reason of a drop is on record"
    if not traced:
        told = "nothing: experiments/trace.py writes what the pictures need"
    if traces.torn:
        told += f"; {traces.torn} left out, since their files are torn"
    if traces.gridless:
        told += f"; {traces.gridless} left out, since their patches have no grid"
    setups = dict.fromkeys(cell.setup for cell in cells)
    return [
        ("Model", ", ".join(each(cells, "model"))),
        ("Benchmark", ", ".join(each(cells, "benchmark"))),
        ("Score", ", ".join(dict.fromkeys(str(cell.metric) for cell in cells))),
        ("Samples", f"{shown}" if shown == every else f"the first {shown} of {every}"),
        ("Arms", f"{len(arms)}"),
        ("Traced", told),
        ("Run", f"{min(each(cells, 'started'))} to {max(each(cells, 'finished'))}"),
        *(("Code and machine", setup) for setup in setups),
    ]
