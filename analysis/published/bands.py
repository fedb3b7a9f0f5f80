"""What all sources together say of one cell: a band, its ends and who stands behind them.

Papers copy from each other, so equal values count once, and a value counts as independent only
where somebody says to have measured it. Knows nothing about runs.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isnan, nan
from typing import Any

MEASURED = ("own", "re-run", "user report")
Row = Mapping[Any, Any]
NAMED = ("model", "method", "benchmark", "metric", "split")
CELL = ("model", "method", "tokens", "benchmark", "metric", "split")


@dataclass(frozen=True)
class Band:
    """The published range of a cell.

    Attributes:
        low: Least value; NaN where nothing is published.
        high: Largest value.
        values: Distinct values; equal ones are taken as one measurement and its copies.
        independent: Those of them that some source calls its own, a re-run or a user's report.
        sources: Who says what: ``53.1 arXiv:2411.10803 Table 1 (own)``.
    """

    low: float
    high: float
    values: int
    independent: int
    sources: tuple[str, ...]

    def judge(self, value: float, low: float, high: float) -> str:
        """How a measured value with its 95 % interval stands to the band.

        Returns:
            ``not published``; ``no independent source``, where nobody says to have measured it;
            ``inside``, where the interval meets the band; ``outside``; ``no interval``, where there
            is none and the value is not in the band.
        """
        if not self.values:
            return "not published"
        if not self.independent:
            return "no independent source"
        if self.low <= value <= self.high:
            return "inside"
        if isnan(low):
            return "no interval"
        return "inside" if low <= self.high and high >= self.low else "outside"


NOTHING = Band(nan, nan, 0, 0, ())


def band(rows: Sequence[Row]) -> Band:
    """The band of the rows of one cell."""
    if not rows:
        return NOTHING
    told = sorted(rows, key=lambda row: (row["value"], row["line"]))
    return Band(
        told[0]["value"],
        told[-1]["value"],
        len({row["value"] for row in told}),
        len({row["value"] for row in told if row["provenance"] in MEASURED}),
        tuple(f"{row['value']:g} {row['source']} ({row['provenance']})" for row in told),
    )


Index = Mapping[tuple[str, ...], Sequence[Row]]


def index(numbers: Iterable[Row]) -> Index:
    """Rows by model, method, benchmark, metric and split, for :func:`cell`."""
    found: dict[tuple[str, ...], list[Row]] = {}
    for row in numbers:
        found.setdefault(tuple(row[name] for name in NAMED), []).append(row)
    return found


def cell(
    numbers: Index,
    model: str,
    method: str,
    tokens: float | None,
    benchmark: str,
    metric: str,
    split: str = "",
) -> list[Row]:
    """The rows about one cell; a budget agrees by its count of tokens, vanilla has but one.

    Args:
        numbers: Those of :func:`analysis.published.numbers.published`.
        model: As sources spell it, as are all names here.
        method: Of the cell.
        tokens: What papers call the budget: nominal or averaged; None: any source's share.
        benchmark: Of the cell.
        metric: Of the cell.
        split: Of the benchmark; empty: sources do not say.
    """
    rows = numbers.get((model, method, benchmark, metric, split), ())
    return [
        row
        for row in rows
        if method == "vanilla"
        or (isnan(row["tokens"]) if tokens is None else row["tokens"] == tokens)
    ]


def bands(numbers: Sequence[Row]) -> list[dict[str, Any]]:
    """The band of every cell with a count of tokens: what it is, the fields of :class:`Band`."""
    groups: dict[tuple, list[Row]] = {}
    for row in numbers:
        if not isnan(row["tokens"]):
            groups.setdefault(tuple(row[name] for name in CELL), []).append(row)
    return [
        {**dict(zip(CELL, key, strict=True)), **vars(band(rows))} for key, rows in groups.items()
    ]
