"""Text of a table: cells, title, and the rows at which groups start.

Values that all rows share go into the title. Reads no run: the text depends only on the table.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from math import isnan
from typing import Any

import pandas as pd

from analysis.records.judgements import on_scale_of_five
from analysis.tables.notes import DIFFERENCES, OFF, SHARED, UNKNOWN, interval_text, notes
from mustdrop.budget import floor_text

RUN_NAMES = (
    "experiment", "model", "benchmark", "method", "preset", "budget", "image", "variant",
)  # fmt: skip
PROFILE_NAMES = ("device", "dtype", "vision tokens", "batch", "arm")
RATER_NAMES = ("judge", "first", "second")
PART_NAMES = ("split",)
NAMES = (*RUN_NAMES, *PROFILE_NAMES, *RATER_NAMES, *PART_NAMES)  # columns that name a row
COMMAND = "mustdrop "  # prefix of a note that is a command line
COSTS = (
    *("nominal", "paper average", "executed average", "resident"),
    *("FLOPs", "KV cache", "s per sample", "setup"),
)
Row = Mapping[Any, Any]
CellText = Callable[[Row], str]


@dataclass(frozen=True)
class Sheet:
    """Table as text.

    Attributes:
        title: Values that all rows share.
        heads: Column heads.
        rows: Rows of cells, one cell per head.
        breaks: Indices of the rows at which a new group starts.
        notes: Notes below the table.
    """

    title: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    breaks: frozenset[int]
    notes: tuple[str, ...]

    def halves(self) -> tuple["Sheet", "Sheet"]:
        """Split a table that is too wide into scores, and costs with the four counts."""
        indices = range(len(self.heads))
        costs = [index for index in indices if self.heads[index] in COSTS]
        names = [index for index in indices if self.heads[index] in NAMES]
        scores = [index for index in indices if index not in costs]
        return self.part(scores, self.title), self.part([*names, *costs], "", self.notes)

    def part(self, columns: Sequence[int], title: str, notes: tuple[str, ...] = ()) -> "Sheet":
        """Sheet with only the columns of these indices."""
        heads = tuple(self.heads[column] for column in columns)
        rows = tuple(tuple(row[column] for column in columns) for row in self.rows)
        return Sheet(title, heads, rows, self.breaks, notes)


def sheet(frame: pd.DataFrame) -> Sheet:
    """Make the sheet of a frame from :mod:`analysis.tables`."""
    rows = frame.to_dict("records")
    return _types(rows) if "type" in frame else _cells(rows)


def _cells(rows: Sequence[Row]) -> Sheet:
    """Sheet of a summary: one row per run."""
    setups = {setup: _letter(index) for index, setup in enumerate(_distinct(rows, "setup"))}
    sizes = _distinct(rows, "n")
    columns: dict[str, CellText] = {name: _plain(name) for name in name_columns(rows)}
    if len(sizes) > 1:
        columns["n"] = lambda row: str(row["n"]) if row["n"] else "–"
    columns[f"{_metric(rows)} [95 %]"] = _accuracy
    for control in DIFFERENCES:
        if any(row.get(f"vs_{control}_n") for row in rows):
            columns[f"Δ {control} [95 %]"] = _difference(f"vs_{control}")
    if any(not isnan(row["target_recall"]) for row in rows):
        columns["target recall"] = lambda row: _percent(row["target_recall"])
    columns |= {
        "nominal": lambda row: number(row["nominal"], ".1f"),
        "paper average": lambda row: number(row["paper_average"], ".1f"),
        "executed average": lambda row: (
            number(row["executed_average"], ".1f") + OFF * (row["matched"] is False)
        ),
        "resident": lambda row: number(row["resident"], ".1f"),
        "FLOPs": lambda row: number(row["flops_ratio"], ".3f"),
        "KV cache": lambda row: quantity(row["kv_bytes"], "B"),
        "s per sample": seconds,
    }
    if len(setups) > 1:
        columns["setup"] = lambda row: setups[row["setup"]] if row["n"] else "–"
    return Sheet(
        title=shared_title(rows, *([f"n = {sizes[0]}"] if len(sizes) == 1 else [])),
        heads=tuple(columns),
        rows=tuple(tuple(cell_text(row) for cell_text in columns.values()) for row in rows),
        breaks=group_breaks(rows),
        notes=(f"{_metric(rows)}: {interval_text(rows)}.", *notes(rows, setups)),
    )


def _types(rows: Sequence[Row]) -> Sheet:
    """Sheet of scores by question type: one column per type."""
    names = name_columns(rows)
    kinds = sorted({row["type"] for row in rows})
    heads = []
    for kind in kinds:
        sizes = sorted({row["n"] for row in rows if row["type"] == kind})
        several = f" to {sizes[-1]}" if len(sizes) > 1 else ""
        heads.append(f"{kind} (n = {sizes[0]}{several})")
    firsts, lines = [], []
    for _, group in groupby(rows, key=lambda row: [str(row[name]) for name in RUN_NAMES]):
        by_type = {row["type"]: row for row in group}
        first = next(iter(by_type.values()))
        firsts.append(first)
        scores = [_score(by_type[kind], digits=0) if kind in by_type else "–" for kind in kinds]
        lines.append((*(_plain(name)(first) for name in names), *scores))
    return Sheet(
        title=shared_title(rows),
        heads=(*names, *heads),
        rows=tuple(lines),
        breaks=group_breaks(firsts),
        notes=(
            f"{_metric(rows)}: {interval_text(rows)}. A type has few samples: read the intervals.",
        ),
    )


def _distinct(rows: Iterable[Row], name: str) -> list[Any]:
    """Distinct values of a column among the rows that ran, in their order."""
    return list(dict.fromkeys(row[name] for row in rows if row["n"]))


def name_columns(rows: Sequence[Row]) -> list[str]:
    """Names of the columns that identify a row: method, budget, and others that differ."""
    names = {name for name in RUN_NAMES if len({str(row[name]) for row in rows}) > 1}
    methods = {row["method"] for row in rows}
    if len({(row["method"], row["preset"]) for row in rows}) == len(methods):
        names.discard("preset")
    return [name for name in RUN_NAMES if name in {*names, "method", "budget"}]


def shared_title(rows: Sequence[Row], *more: str) -> str:
    """Title with the names that all rows share."""
    columns = name_columns(rows)
    candidates = ("experiment", "model", "benchmark", "image")
    shared = [name for name in candidates if name not in columns]
    return " · ".join([*(str(rows[0][name]) for name in shared if rows[0][name]), *more])


def group_breaks(rows: Sequence[Row]) -> frozenset[int]:
    """Indices of the rows at which another experiment, model, benchmark or budget starts."""
    keys = [[row[name] for name in ("experiment", "model", "benchmark", "budget")] for row in rows]
    return frozenset(index for index, (a, b) in enumerate(pairwise(keys), 1) if a != b)


def _metric(rows: Iterable[Row]) -> str:
    names = _distinct(rows, "metric")
    return str(names[0]) if len(names) == 1 else "score"


def _plain(name: str) -> CellText:
    return lambda row: str(row[name]) if row[name] else "–"


def _accuracy(row: Row) -> str:
    return _score(row) if row["n"] else f"floor {floor_text(row['floor'], '.0f')}"


def _score(row: Row, digits: int = 1) -> str:
    return _interval(row["accuracy"], row["low"], row["high"], _scale(row), digits=digits)


def _difference(name: str) -> CellText:
    def cell_text(row: Row) -> str:
        ends = row[f"{name}_low"], row[f"{name}_high"]
        return _interval(row[name], *ends, _scale(row), "+") if row[f"{name}_n"] else "–"

    return cell_text


def _scale(row: Row) -> float:
    """Factor to the displayed scale: scores within [0, 1] are shown in percent."""
    share = 0 <= row["accuracy"] <= 1 and not on_scale_of_five(row["metric"])
    return 100.0 if share else 1.0


def span(value: float, low: float, high: float, sign: str = "", digits: int = 1) -> str:
    """Number as text, with the ends of its interval if there is one."""
    middle, start, end = (
        f"{item:{sign if item else ''}.{digits}f}".replace("-", "−") for item in (value, low, high)
    )
    return middle if isnan(low) else f"{middle} [{start}, {end}]"


def _interval(
    value: float, low: float, high: float, scale: float, sign: str = "", digits: int = 1
) -> str:
    return span(scale * value, scale * low, scale * high, sign, digits)


def _percent(value: float) -> str:
    return "–" if isnan(value) else f"{100 * value:.1f}"


def number(value: float, form: str, unit: str = "") -> str:
    """Number in a format; a dash for NaN."""
    return "–" if isnan(value) else f"{value:{form}}{unit}"


def seconds(row: Row) -> str:
    """Seconds per sample, with a mark if the machine was shared or if that is unknown."""
    mark = {True: SHARED, False: "", None: UNKNOWN}[row["shared_machine"]]
    text = number(row["seconds"], ".3g")
    return text if text == "–" else f"{text}{mark}"


def quantity(value: float, unit: str = "") -> str:
    """Large number with three digits: ``5.41 MB``, ``1.54 G``; a dash for NaN."""
    if isnan(value):
        return "–"
    for prefix in ("", "k", "M", "G"):
        if abs(value) < 1000:
            return f"{value:.3g} {prefix}{unit}".strip()
        value /= 1000
    return f"{value:.3g} T{unit}"


def _letter(index: int) -> str:
    """Letters for an index: A, B, ... Z, AA, ..."""
    return (_letter(index // 26 - 1) if index >= 26 else "") + chr(ord("A") + index % 26)
