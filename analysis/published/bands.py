"""Band of published values for one cell: its ends, and the sources of the values.

Papers copy from each other, so equal values count once, and a value counts as independent only if
a source says that it measured it. Knows nothing about runs.
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
    """Range of the published values of a cell.

    Attributes:
        low: Smallest value; NaN if nothing is published.
        high: Largest value.
        values: Number of distinct values; equal values count as copies of one measurement.
        independent: Number of distinct values that a source calls its own, a re-run or a user's
            report.
        sources: Values with sources, such as ``53.1 arXiv:2411.10803 Table 1 (own)``.
    """

    low: float
    high: float
    values: int
    independent: int
    sources: tuple[str, ...]

    def judge(self, value: float, low: float, high: float) -> str:
        """Compare a measured value and its 95 % interval with the band.

        Returns:
            ``not published``; ``no independent source`` if no source says that it measured the
            value; ``inside`` if the interval overlaps the band; ``outside``; ``no interval`` if
            there is no interval and the value is not in the band.
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
    """Band of the rows of one cell."""
    if not rows:
        return NOTHING
    ordered = sorted(rows, key=lambda row: (row["value"], row["line"]))
    return Band(
        ordered[0]["value"],
        ordered[-1]["value"],
        len({row["value"] for row in ordered}),
        len({row["value"] for row in ordered if row["provenance"] in MEASURED}),
        tuple(f"{row['value']:g} {row['source']} ({row['provenance']})" for row in ordered),
    )


Index = Mapping[tuple[str, ...], Sequence[Row]]


def index(numbers: Iterable[Row]) -> Index:
    """Index rows by model, method, benchmark, metric and split, for :func:`cell`."""
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in numbers:
        groups.setdefault(tuple(row[name] for name in NAMED), []).append(row)
    return groups


def cell(
    numbers: Index,
    model: str,
    method: str,
    tokens: float | None,
    benchmark: str,
    metric: str,
    split: str = "",
) -> list[Row]:
    """Find the rows of one cell by its names and its number of tokens.

    Args:
        numbers: Index of the rows of :func:`analysis.published.numbers.published`.
        model: Name of the model in the spelling of the sources; so are the other names.
        method: Name of the method; vanilla matches any number of tokens.
        tokens: Number of tokens that papers call the budget, nominal or averaged; None for rows
            that give a share instead.
        benchmark: Name of the benchmark.
        metric: Name of the metric.
        split: Split of the benchmark; empty if sources do not name one.
    """
    rows = numbers.get((model, method, benchmark, metric, split), ())
    return [
        row
        for row in rows
        if method == "vanilla"
        or (isnan(row["tokens"]) if tokens is None else row["tokens"] == tokens)
    ]


def bands(numbers: Sequence[Row]) -> list[dict[str, Any]]:
    """Name and band of every cell with a count of tokens, as one mapping per cell."""
    groups: dict[tuple, list[Row]] = {}
    for row in numbers:
        if not isnan(row["tokens"]):
            groups.setdefault(tuple(row[name] for name in CELL), []).append(row)
    return [
        {**dict(zip(CELL, key, strict=True)), **vars(band(rows))} for key, rows in groups.items()
    ]
