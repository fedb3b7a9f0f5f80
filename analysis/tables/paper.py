"""The words of the paper's tables: ours and what is published side by side, never in one column.

What is missing is said to be missing, with the commands that fill it below. Knows nothing about
runs: text is a function of :mod:`analysis.tables.grid` and :mod:`analysis.tables.costs`.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from math import isnan
from typing import Any

import pandas as pd

from analysis.statistics.intervals import Interval
from analysis.tables.commands import borrowed, calibration, command
from analysis.tables.costs import CONVENTIONS
from analysis.tables.grid import RELATIVE, Filled
from analysis.tables.layouts import Layout
from analysis.tables.notes import INTERVALS, OFF, timings
from analysis.tables.sheets import Sheet, number, quantity, seconds, span

PUBLISHED = ", published"
Row = Mapping[Any, Any]


def score_sheet(layout: Layout, filled: Filled) -> Sheet:
    """Scores of one model: a row a method within its budget, two columns a benchmark."""
    rows, part = filled.cells.to_dict("records"), filled.part
    told = any(row["band_values"] or not isnan(row["paper"]) for row in rows)
    ran = [row for row in rows if row["state"] == "measured" and row["benchmark"] != RELATIVE]
    sizes = sorted({row["n"] for row in ran})
    benchmarks = list(dict.fromkeys(row["benchmark"] for row in rows))
    heads = ["method", "budget"]
    for name in benchmarks:
        heads += [name, f"{name}{PUBLISHED}"] if told else [name]
    lines, breaks, last = [], set(), None
    for (budget, method), group in groupby(
        rows_by_line(rows), lambda r: (r["budget"], r["method"])
    ):
        cells = {row["benchmark"]: row for row in group}
        line = [method, budget]
        for name in benchmarks:
            line += [ours(cells[name], len(sizes) > 1), *([theirs(cells[name])] if told else [])]
        if last is not None and budget != last:
            breaks.add(len(lines))
        lines.append(tuple(line))
        last = budget
    title = [layout.name, layout.title, part.model or part.published_model or ""]
    return Sheet(
        title=" · ".join([*title, *([f"n = {sizes[0]}"] if len(sizes) == 1 else [])]),
        heads=tuple(heads),
        rows=tuple(lines),
        breaks=frozenset(breaks),
        notes=tuple(_notes(layout, filled, ran, told)),
    )


def rows_by_line(rows: Sequence[Row]) -> list[Row]:
    """Cells with those of one budget and method together, in the order of first appearance."""
    order = {key: place for place, key in enumerate(dict.fromkeys(map(_line, rows)))}
    return sorted(rows, key=lambda row: order[_line(row)])


def _line(row: Row) -> tuple[str, str]:
    return row["budget"], row["method"]


def ours(row: Row, sizes: bool = False) -> str:
    """What we measured, and at how many executed tokens; or why there is nothing."""
    if row["benchmark"] == RELATIVE:
        if not row["n"]:
            return "–"
        every = row["n"] == row["available"]
        return f"{row['ours']:.1f}" + ("" if every else f"\n{row['n']} of {row['available']}")
    if row["state"] == "floor":
        return f"floor {row['floor']:.0f}"
    if row["state"] == "several":
        return "several runs"
    if row["state"] != "measured":
        return "missing"
    told = span(row["ours"], row["low"], row["high"])
    executed = f"{row['executed_average']:.1f}{OFF if row['matched'] is False else ''} tokens"
    return f"{told}\n{executed}" + (f"\nn = {row['n']}" if sizes else "")


def theirs(row: Row) -> str:
    """The paper's number, the band of all sources, and how ours stands to it."""
    if isnan(row["paper"]) and not row["band_values"]:
        return "–"
    parts = [] if isnan(row["paper"]) else [_said(row["paper"])]
    if row["band_values"]:
        low, high = row["band_low"], row["band_high"]
        band = _said(low) if low == high else f"{_said(low)}..{_said(high)}"
        parts = [part for part in parts if part != band]
        parts.append(f"{band} ({row['band_independent']}/{row['band_values']})")
    return "\n".join([*parts, *([row["verdict"]] if row["verdict"] else [])])


def _said(value: float) -> str:
    """As papers print it: sums without decimals, percent with one, more where it was told so."""
    return f"{value:.0f}" if value >= 1000 else f"{round(value, 2):.1f}"


def _notes(layout: Layout, filled: Filled, ran: Sequence[Row], told: bool) -> Iterator[str]:
    part, cells = filled.part, filled.cells
    if part.note:
        yield part.note
    if ran:
        used = {row["interval"] for row in ran}
        kinds = ", or ".join(text for name, text in INTERVALS.items() if name in used)
        yield f"Ours: score [{kinds or 'no interval'}], executed average of vision tokens."
    for row in ran:
        if row["interval"] == "none":
            yield f"{row['metric']}: no mean of samples, so it has no interval here."
            break
    if any(row["matched"] is False for row in ran):
        yield f"{OFF}: the executed average is more than 1 % off the budget."
    if "floor" in set(cells["state"]):
        yield "floor: the least executed average that the method reaches; the budget is below it."
    for row in cells.to_dict("records"):
        if row["state"] == "several":
            yield (
                f"{row['method']} {row['budget']} {row['benchmark']}: several runs, give the "
                f"folder of one ({row['variants']})."
            )
    if told:
        yield (
            "Published: the paper's number, then least..largest value of all sources (values that "
            "somebody says to have measured / distinct values). inside: our interval meets that "
            "band; no independent source: nobody says to have measured any of it."
        )
    if "not comparable" in set(cells["verdict"]):
        yield (
            "not comparable: another split or metric; analysis/reference/benchmarks.csv says which."
        )
    if part.relative:
        yield (
            "relative average: mean over benchmarks of the score as a share of vanilla's, percent; "
            "published: computed from the paper's own row, which does not print it."
        )
    yield from missing(layout, filled)


def missing(layout: Layout, filled: Filled) -> Iterator[str]:
    """How many cells are missing, and the commands that fill them."""
    model, cells = filled.part.model, filled.cells
    rows = [row for row in cells.to_dict("records") if row["benchmark"] != RELATIVE]
    asked = [
        (row["method"], row["budget"], row["benchmark"])
        for row in rows
        if row["state"] == "missing"
    ]
    if model is None or not asked:
        return
    thresholds = calibration(model, asked)
    if thresholds:
        yield f"Thresholds first, where conf/tuned/{model}/ has none:"
        yield from thresholds
    yield from borrowed(asked)
    yield f"{len(asked)} of {len(rows)} cells are missing; these fill them:"
    whole = [part for part in (layout.parts) if part.model == model]
    preset = {(row.method, row.budget) for part in whole for row in part.lines}
    if whole and len(asked) == len(rows) and {row[:2] for row in asked} == preset:
        yield f"python experiments/run.py -m experiment={layout.name}"
    else:
        yield from command(layout.name, model, asked, filled.limits)


def cost_sheet(layout: Layout, filled: Filled, frame: pd.DataFrame) -> Sheet:
    """Costs of one model, each convention in a column of its own."""
    rows = frame.to_dict("records")
    columns = {
        "cached tokens": lambda row: number(row["resident"], ".1f"),
        "KV, true": lambda row: quantity(row["kv_bytes"], "B"),
        "KV, vision": lambda row: quantity(row["kv_vision_bytes"], "B"),
        "KV at 0.525 MB": lambda row: quantity(row["kv_paper_mb"] * 1e6, "B"),
        "MACs": lambda row: quantity(row["macs"]),
        "FLOPs": lambda row: quantity(row["flops"]),
        "MACs, vision, 3 matrices": lambda row: quantity(row["macs_three"]),
        "MACs, vision, 2 matrices": lambda row: quantity(row["macs_two"]),
        "s per sample": seconds,
        f"KV{PUBLISHED}": lambda row: number(row["paper_kv_mb"], ".1f", " MB"),
        f"FLOPs{PUBLISHED}": lambda row: number(row["paper_tera_flops"], ".1f", " T"),
        f"time{PUBLISHED}": lambda row: number(row["paper_seconds"], ".0f", " s"),
    }  # fmt: skip
    columns = {
        head: say
        for head, say in columns.items()
        if not head.endswith(PUBLISHED) or any(say(row) != "–" for row in rows)
    }
    several = len({row["benchmark"] for row in rows}) > 1
    names = ["method", "budget", *(["benchmark"] if several else [])]
    notes = [f"{text}." for text in CONVENTIONS.values()]
    notes.append(
        "KV, true: bytes of the prompt's cache, text included; vision: of vision tokens alone; at "
        "0.525 MB: the paper's count, a token of a 7B model in float16 (true: 0.524288)."
    )
    notes.append("s per sample: median; it compares within one setup only.")
    notes += timings(row for row in rows if not isnan(row["seconds"]))
    return Sheet(
        title=f"{layout.name} · costs · {filled.part.model or filled.part.published_model}",
        heads=(*names, *columns),
        rows=tuple(
            (*(str(row[name]) for name in names), *(say(row) for say in columns.values()))
            for row in rows
        ),
        breaks=frozenset(),
        notes=tuple(notes),
    )


def difference(found: Interval, scale: float) -> str:
    """A paired difference with its interval, in points."""
    if not found.n:
        return "–"
    return span(found.value * scale, found.low * scale, found.high * scale, "+")
