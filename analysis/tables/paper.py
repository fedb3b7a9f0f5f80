"""Text of the paper's tables: our numbers and published numbers in separate columns.

Missing cells are marked, and the commands that fill them are below the table. Knows nothing about
runs: the text depends only on :mod:`analysis.tables.grid` and :mod:`analysis.tables.costs`.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from math import isnan
from typing import Any

import pandas as pd

from analysis.statistics.intervals import Interval
from analysis.tables.commands import calibration, command, uncalibrated_notes
from analysis.tables.costs import CONVENTIONS
from analysis.tables.grid import RELATIVE, Filled
from analysis.tables.layouts import Layout
from analysis.tables.notes import FLOOR_TEXT, INTERVALS, OFF, calibrations, timings
from analysis.tables.sheets import Sheet, number, quantity, seconds, span
from mustdrop.budget import floor_text

PUBLISHED = ", published"
FINISHED = ("measured", "floor")  # states of cells with a run
MEASURED_HEADS = {
    "first token", "first token / vanilla", "per token", "peak", "KV, measured", "FLOPs, measured",
}  # fmt: skip
Row = Mapping[Any, Any]


def score_sheet(layout: Layout, filled: Filled) -> Sheet:
    """Sheet of one model's scores: one row per budget and method, two columns per benchmark."""
    rows, part = filled.cells.to_dict("records"), filled.part
    has_published = any(row["band_values"] or not isnan(row["paper"]) for row in rows)
    ran = [row for row in rows if row["state"] == "measured" and row["benchmark"] != RELATIVE]
    sizes = sorted({row["n"] for row in ran})
    benchmarks = list(dict.fromkeys(row["benchmark"] for row in rows))
    heads = ["method", "budget"]
    for name in benchmarks:
        heads += [name, f"{name}{PUBLISHED}"] if has_published else [name]
    lines, breaks, last_budget = [], set(), None
    for (budget, method), group in groupby(
        rows_by_line(rows), lambda r: (r["budget"], r["method"])
    ):
        cells = {row["benchmark"]: row for row in group}
        line = [method, budget]
        for name in benchmarks:
            line.append(ours(cells[name], len(sizes) > 1))
            if has_published:
                line.append(theirs(cells[name]))
        if last_budget is not None and budget != last_budget:
            breaks.add(len(lines))
        lines.append(tuple(line))
        last_budget = budget
    title = [layout.name, layout.title, part.model or part.published_model or ""]
    title += [part.metric.replace("_", " ")] if part.metric else []
    return Sheet(
        title=" · ".join([*title, *([f"n = {sizes[0]}"] if len(sizes) == 1 else [])]),
        heads=tuple(heads),
        rows=tuple(lines),
        breaks=frozenset(breaks),
        notes=tuple(_notes(layout, filled, ran, has_published)),
    )


def rows_by_line(rows: Sequence[Row]) -> list[Row]:
    """Sort cells so that those of one budget and method are together, in order of appearance."""
    order = {key: index for index, key in enumerate(dict.fromkeys(map(_line, rows)))}
    return sorted(rows, key=lambda row: order[_line(row)])


def _line(row: Row) -> tuple[str, str]:
    return row["budget"], row["method"]


def ours(row: Row, sizes: bool = False) -> str:
    """Our score with its interval and executed tokens, or the reason why there is none."""
    if row["benchmark"] == RELATIVE:
        if not row["n"]:
            return "–"
        complete = row["n"] == row["available"]
        return f"{row['ours']:.1f}" + ("" if complete else f"\n{row['n']} of {row['available']}")
    if row["state"] == "floor":
        return f"floor {floor_text(row['floor'], '.0f')}"
    if row["state"] == "several":
        return "several runs"
    if row["state"] == "unjudged":
        return "not judged"
    if row["state"] != "measured":
        return "missing"
    score = span(row["ours"], row["low"], row["high"])
    executed = f"{row['executed_average']:.1f}{OFF if row['matched'] is False else ''} tokens"
    if row["off_grid"] > 0:
        executed += f"\n{row['off_grid_average']:.1f} off grid"
    return f"{score}\n{executed}" + (f"\nn = {row['n']}" if sizes else "")


def theirs(row: Row) -> str:
    """Number of the paper, band of all sources, and verdict on our score."""
    if isnan(row["paper"]) and not row["band_values"]:
        return "–"
    parts = [] if isnan(row["paper"]) else [_published_text(row["paper"])]
    if row["band_values"]:
        low, high = row["band_low"], row["band_high"]
        band = (
            _published_text(low)
            if low == high
            else f"{_published_text(low)}..{_published_text(high)}"
        )
        parts = [part for part in parts if part != band]
        parts.append(f"{band} ({row['band_independent']}/{row['band_values']})")
    return "\n".join([*parts, *([row["verdict"]] if row["verdict"] else [])])


def _published_text(value: float) -> str:
    """Number as papers print it: totals without decimals, percentages with one."""
    return f"{value:.0f}" if value >= 1000 else f"{round(value, 2):.1f}"


def _notes(
    layout: Layout, filled: Filled, ran: Sequence[Row], has_published: bool
) -> Iterator[str]:
    """Notes below a table of scores."""
    part, cells = filled.part, filled.cells
    if part.note:
        yield part.note
    if ran:
        used = {row["interval"] for row in ran}
        kinds = ", or ".join(text for name, text in INTERVALS.items() if name in used)
        yield f"Ours: score [{kinds or 'no interval'}], executed average of vision tokens."
    yield from _entered(ran)
    for row in ran:
        if row["interval"] == "none":
            yield f"{row['metric']}: it is not a mean over samples, so it has no interval here."
            break
    if any(row["matched"] is False for row in ran):
        yield f"{OFF}: the executed average is more than 1 % off the budget."
    yield from calibrations(row for row in cells.to_dict("records") if row["state"] in FINISHED)
    if "floor" in set(cells["state"]):
        yield FLOOR_TEXT
    for row in cells.to_dict("records"):
        if row["state"] == "several":
            yield (
                f"{row['method']} {row['budget']} {row['benchmark']}: there are several runs "
                f"({row['variants']}); give the folder of one."
            )
    if has_published:
        yield (
            "Published: the paper's number, then smallest..largest value of all sources (number of "
            "values that a source reports as its own measurement / number of distinct values). "
            "inside: our interval overlaps the band; no independent source: no source reports a "
            "measurement of its own."
        )
    if "not comparable" in set(cells["verdict"]):
        yield ("not comparable: another split or metric; see analysis/reference/benchmarks.csv.")
    if part.relative:
        yield (
            "relative average: mean over benchmarks of the score relative to vanilla, in percent; "
            "published: computed from the scores in the paper, which does not print it."
        )
    if unread := [row["folder"] for row in cells.to_dict("records") if row["state"] == "unjudged"]:
        yield "not judged: a judge has to read the answers first (docs/judging.md):"
        yield f"mustdrop judge {' '.join(dict.fromkeys(unread))} --dry-run"
    yield from missing(layout, filled)


def _entered(ran: Sequence[Row]) -> Iterator[str]:
    """Notes on the vision tokens that entered, if the prompts differ in size."""
    if not any(row["budget"].startswith("s") for row in ran):
        return
    for benchmark, row in {row["benchmark"]: row for row in ran if not isnan(row["cells"])}.items():
        off_grid = f" and {row['off_grid']:.1f} off grid" if row["off_grid"] else ""
        yield (
            f"{benchmark}: without dropping, {row['cells']:.1f} vision tokens of a prompt show a "
            f"cell{off_grid} (means). A budget is a share of the cells."
        )
    if any(row["off_grid"] > 0 for row in ran):
        yield (
            "off grid: newlines and the [CLS] of frames, which show no cell. The executed average "
            "counts them, the budget does not. A method that acts in the encoder cannot drop them."
        )


def missing(layout: Layout, filled: Filled) -> Iterator[str]:
    """Notes on missing cells: their number and the commands that fill them."""
    model, cells = filled.part.model, filled.cells
    rows = [row for row in cells.to_dict("records") if row["benchmark"] != RELATIVE]
    missing_cells = [
        (row["method"], row["budget"], row["benchmark"])
        for row in rows
        if row["state"] == "missing"
    ]
    if model is None or not missing_cells:
        return
    thresholds = calibration(model, missing_cells)
    if thresholds:
        yield f"Calibrate first the thresholds that conf/tuned/{model}.yaml lacks:"
        yield from thresholds
    yield from uncalibrated_notes(missing_cells)
    yield f"{len(missing_cells)} of {len(rows)} cells are missing; these commands fill them:"
    parts = [part for part in layout.parts if part.model == model]
    listed = {(row.method, row.budget) for part in parts for row in part.lines}
    if parts and len(missing_cells) == len(rows) and {row[:2] for row in missing_cells} == listed:
        yield f"mustdrop run -m experiment={filled.part.experiment}"
    else:
        yield from command(filled.part.experiment, model, missing_cells, filled.limits)


def cost_sheet(layout: Layout, filled: Filled, frame: pd.DataFrame) -> Sheet:
    """Sheet of one model's costs, with one column per convention."""
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
        "first token": lambda row: number(row["measured_ttft_ms"], ".1f", " ms"),
        "first token / vanilla": lambda row: number(row["measured_vs_vanilla"], ".2f"),
        "per token": lambda row: number(row["measured_token_ms"], ".2f", " ms"),
        "peak": lambda row: quantity(row["measured_peak_bytes"], "B"),
        "KV, measured": lambda row: quantity(row["measured_kv_bytes"], "B"),
        "FLOPs, measured": lambda row: quantity(row["measured_flops"]),
        f"KV{PUBLISHED}": lambda row: number(row["paper_kv_mb"], ".1f", " MB"),
        f"FLOPs{PUBLISHED}": lambda row: number(row["paper_tera_flops"], ".1f", " T"),
        f"time{PUBLISHED}": lambda row: number(row["paper_seconds"], ".0f", " s"),
    }  # fmt: skip
    columns = {
        head: cell_text
        for head, cell_text in columns.items()
        if not (head.endswith(PUBLISHED) or head in MEASURED_HEADS)
        or any(cell_text(row) != "–" for row in rows)
    }
    several = len({row["benchmark"] for row in rows}) > 1
    names = ["method", "budget", *(["benchmark"] if several else [])]
    notes = [f"{text}." for text in CONVENTIONS.values()]
    notes.append(
        "KV, true: bytes of the prompt's cache, including text; vision: of vision tokens only; at "
        "0.525 MB: the paper's size of a token of a 7B model in float16 (true: 0.524288)."
    )
    notes.append("s per sample: median, which can be compared only within one setup.")
    if MEASURED_HEADS & {*columns}:
        notes.append(
            "first token to FLOPs, measured: from mustdrop profile, one prompt at a time, encoder "
            "included; see mustdrop tables efficiency for device and intervals."
        )
    notes += timings(row for row in rows if not isnan(row["seconds"]))
    return Sheet(
        title=f"{layout.name} · costs · {filled.part.model or filled.part.published_model}",
        heads=(*names, *columns),
        rows=tuple(
            (
                *(str(row[name]) for name in names),
                *(cell_text(row) for cell_text in columns.values()),
            )
            for row in rows
        ),
        breaks=frozenset(),
        notes=tuple(notes),
    )


def difference(paired: Interval, scale: float) -> str:
    """Paired difference with its interval, in points."""
    if not paired.n:
        return "–"
    return span(paired.value * scale, paired.low * scale, paired.high * scale, "+")
