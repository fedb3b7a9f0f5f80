"""The words of a table: what each cell says, what the title shares, where groups break.

What all rows share moves into the title. Knows nothing about runs: text is a function of the table.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from math import isnan
from typing import Any

import pandas as pd

from analysis.tables.notes import DIFFERENCES, OFF, SHARED, UNKNOWN, how, notes

NAMES = ("experiment", "model", "benchmark", "method", "preset", "budget", "image", "variant")
COMMAND = "python "  # a note that begins so is a line to type
COSTS = (
    *("nominal", "paper average", "executed average", "resident"),
    *("FLOPs", "KV cache", "s per sample", "setup"),
)
Row = Mapping[Any, Any]
Say = Callable[[Row], str]


@dataclass(frozen=True)
class Sheet:
    """A table as text.

    Attributes:
        title: What all rows share.
        heads: Column heads.
        rows: As many cells as heads each.
        breaks: Rows (by index) before which another group starts.
        notes: What a reader must know.
    """

    title: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    breaks: frozenset[int]
    notes: tuple[str, ...]

    def halves(self) -> tuple["Sheet", "Sheet"]:
        """Scores, and costs with the four counts: two tables for where one is too wide."""
        places = range(len(self.heads))
        costs = [place for place in places if self.heads[place] in COSTS]
        names = [place for place in places if self.heads[place] in NAMES]
        scores = [place for place in places if place not in costs]
        return self.part(scores, self.title), self.part([*names, *costs], "", self.notes)

    def part(self, places: Sequence[int], title: str, notes: tuple[str, ...] = ()) -> "Sheet":
        """Some of its columns."""
        heads = tuple(self.heads[place] for place in places)
        rows = tuple(tuple(row[place] for place in places) for row in self.rows)
        return Sheet(title, heads, rows, self.breaks, notes)


def sheet(frame: pd.DataFrame) -> Sheet:
    """A frame of :mod:`analysis.tables` as text."""
    rows = frame.to_dict("records")
    return _types(rows) if "type" in frame else _cells(rows)


def _cells(rows: Sequence[Row]) -> Sheet:
    setups = {setup: _letter(place) for place, setup in enumerate(_each(rows, "setup"))}
    sizes = _each(rows, "n")
    columns: dict[str, Say] = {name: _plain(name) for name in _told(rows)}
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
        title=_title(rows, *([f"n = {sizes[0]}"] if len(sizes) == 1 else [])),
        heads=tuple(columns),
        rows=tuple(tuple(say(row) for say in columns.values()) for row in rows),
        breaks=_breaks(rows),
        notes=(f"{_metric(rows)}: {how(rows)}.", *notes(rows, setups)),
    )


def _types(rows: Sequence[Row]) -> Sheet:
    names = _told(rows)
    kinds = sorted({row["type"] for row in rows})
    heads = []
    for kind in kinds:
        sizes = sorted({row["n"] for row in rows if row["type"] == kind})
        several = f" to {sizes[-1]}" if len(sizes) > 1 else ""
        heads.append(f"{kind} (n = {sizes[0]}{several})")
    firsts, lines = [], []
    for _, group in groupby(rows, key=lambda row: [str(row[name]) for name in NAMES]):
        found = {row["type"]: row for row in group}
        first = next(iter(found.values()))
        firsts.append(first)
        scores = [_score(found[kind], digits=0) if kind in found else "–" for kind in kinds]
        lines.append((*(_plain(name)(first) for name in names), *scores))
    return Sheet(
        title=_title(rows),
        heads=(*names, *heads),
        rows=tuple(lines),
        breaks=_breaks(firsts),
        notes=(f"{_metric(rows)}: {how(rows)}. Few samples a type: read the intervals.",),
    )


def _each(rows: Iterable[Row], name: str) -> list[Any]:
    """The values of a column among the cells that ran, each once, in their order."""
    return list(dict.fromkeys(row[name] for row in rows if row["n"]))


def _told(rows: Sequence[Row]) -> list[str]:
    """The names that a row must give: method and budget, and whatever else differs between rows."""
    told = {name for name in NAMES if len({str(row[name]) for row in rows}) > 1}
    methods = {row["method"] for row in rows}
    if len({(row["method"], row["preset"]) for row in rows}) == len(methods):
        told.discard("preset")
    return [name for name in NAMES if name in {*told, "method", "budget"}]


def _title(rows: Sequence[Row], *more: str) -> str:
    told = _told(rows)
    shared = [name for name in ("experiment", "model", "benchmark", "image") if name not in told]
    return " · ".join([*(str(rows[0][name]) for name in shared if rows[0][name]), *more])


def _breaks(rows: Sequence[Row]) -> frozenset[int]:
    keys = [[row[name] for name in ("experiment", "model", "benchmark", "budget")] for row in rows]
    return frozenset(place for place, (a, b) in enumerate(pairwise(keys), 1) if a != b)


def _metric(rows: Iterable[Row]) -> str:
    names = _each(rows, "metric")
    return str(names[0]) if len(names) == 1 else "score"


def _plain(name: str) -> Say:
    return lambda row: str(row[name]) if row[name] else "–"


def _accuracy(row: Row) -> str:
    return _score(row) if row["n"] else f"floor {row['floor']:.0f}"


def _score(row: Row, digits: int = 1) -> str:
    return _interval(row["accuracy"], row["low"], row["high"], _scale(row), digits=digits)


def _difference(name: str) -> Say:
    def say(row: Row) -> str:
        ends = row[f"{name}_low"], row[f"{name}_high"]
        return _interval(row[name], *ends, _scale(row), "+") if row[f"{name}_n"] else "–"

    return say


def _scale(row: Row) -> float:
    """Scores within [0, 1] are told in percent."""
    return 100.0 if 0 <= row["accuracy"] <= 1 else 1.0


def span(value: float, low: float, high: float, sign: str = "", digits: int = 1) -> str:
    """A number with the ends of its interval, where it has one."""
    middle, start, end = (
        f"{each:{sign if each else ''}.{digits}f}".replace("-", "−") for each in (value, low, high)
    )
    return middle if isnan(low) else f"{middle} [{start}, {end}]"


def _interval(
    value: float, low: float, high: float, scale: float, sign: str = "", digits: int = 1
) -> str:
    return span(scale * value, scale * low, scale * high, sign, digits)


def _percent(value: float) -> str:
    return "–" if isnan(value) else f"{100 * value:.1f}"


def number(value: float, form: str, unit: str = "") -> str:
    """A number in a form; a dash where there is none."""
    return "–" if isnan(value) else f"{value:{form}}{unit}"


def seconds(row: Row) -> str:
    """Seconds per sample, with a mark where something else ran meanwhile, or nobody knows."""
    mark = {True: SHARED, False: "", None: UNKNOWN}[row["shared_machine"]]
    text = number(row["seconds"], ".3g")
    return text if text == "–" else f"{text}{mark}"


def quantity(value: float, unit: str = "") -> str:
    """A large number with three digits: ``5.41 MB``, ``1.54 G``; a dash where there is none."""
    if isnan(value):
        return "–"
    for prefix in ("", "k", "M", "G"):
        if abs(value) < 1000:
            return f"{value:.3g} {prefix}{unit}".strip()
        value /= 1000
    return f"{value:.3g} T{unit}"


def _letter(place: int) -> str:
    """A, B, ... Z, AA, ..."""
    return (_letter(place // 26 - 1) if place >= 26 else "") + chr(ord("A") + place % 26)
