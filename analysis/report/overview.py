"""Overview of the page: the summary table with its sort keys, and facts about the runs.

Texts and numbers are those of :mod:`analysis.tables`. Knows nothing about samples.
"""

from collections.abc import Sequence
from typing import Any

from analysis.records.cells import RunResult
from analysis.report.marks import look
from analysis.report.naming import distinct_values, number, run_keys
from analysis.report.tracing import Traces
from analysis.tables.sheets import sheet
from analysis.tables.summary import summary_of_cells

# Heads of columns in the sheet -> columns of the summary that they are sorted by.
ORDERS = {
    "paper average": "paper_average", "executed average": "executed_average",
    "FLOPs": "flops_ratio", "KV cache": "kv_bytes", "s per sample": "seconds",
    "target recall": "target_recall",
}  # fmt: skip


def summary_table(cells: Sequence[RunResult]) -> dict[str, Any]:
    """Sheet of :mod:`analysis.tables`, with the arm and the sort keys of each row."""
    frame = summary_of_cells(cells)
    shown = sheet(frame)
    rows = frame.to_dict("records")
    ran = [cell for cell in cells if cell.metric is not None]
    arms = {id(cell): key for cell, key in zip(ran, run_keys(ran), strict=True)}
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
    """Sort key of a row in a column of the sheet: a number if possible, else a text."""
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
    """Facts about the runs, as (name, text)."""
    traced = {sample for arm in arms for sample in arm["traces"]}
    tracing = [arm for arm in arms if arm["traces"]]
    coverage = f"{len(traced)} of {shown} samples, in {len(tracing)} of {len(arms)} arms"
    if traced and not traces.pictures:
        coverage += "; ledgers only, with no pictures and no reasons of drops"
    if not traced:
        coverage = "nothing: mustdrop trace writes traces"
    if traces.torn:
        coverage += f"; {traces.torn} left out, because their files are torn"
    if traces.imageless:
        coverage += f"; {traces.imageless} left out, because their prompts have no image"
    first, last = min(distinct_values(cells, "started")), max(distinct_values(cells, "finished"))
    setups = dict.fromkeys(cell.setup for cell in cells)
    return [
        ("Model", ", ".join(distinct_values(cells, "model"))),
        ("Benchmark", ", ".join(distinct_values(cells, "benchmark"))),
        ("Score", ", ".join(dict.fromkeys(str(cell.metric) for cell in cells))),
        ("Samples", f"{shown}" if shown == every else f"the first {shown} of {every}"),
        ("Arms", f"{len(arms)}"),
        ("Traced", coverage),
        ("Run", f"from {first} to {last}"),
        *(("Code and machine", setup) for setup in setups),
    ]
