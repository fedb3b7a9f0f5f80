"""What all sources together say of one cell: a band, its ends and who stands behind them.

Papers copy from each other, so equal values count once, and a value counts as independent only
where somebody says to have measured it. Knows nothing about runs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan, nan

import pandas as pd

MEASURED = ("own", "re-run", "user report")
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


def band(rows: pd.DataFrame) -> Band:
    """The band of the rows of one cell."""
    if rows.empty:
        return NOTHING
    told = rows.sort_values(["value", "line"])
    measured = told[told["provenance"].isin(MEASURED)]
    return Band(
        float(told["value"].min()),
        float(told["value"].max()),
        int(told["value"].nunique()),
        int(measured["value"].nunique()),
        tuple(
            f"{row['value']:g} {row['source']} ({row['provenance']})"
            for row in told.to_dict("records")
        ),
    )


def cell(
    numbers: pd.DataFrame,
    model: str,
    method: str,
    tokens: float | None,
    benchmark: str,
    metric: str,
    split: str = "",
) -> pd.DataFrame:
    """The rows about one cell; a budget agrees by its count of tokens, vanilla has but one.

    Args:
        numbers: Of :func:`analysis.published.numbers.published`.
        model: As sources spell it, as are all names here.
        method: Of the cell.
        tokens: What papers call the budget: nominal or averaged; None: any source's share.
        benchmark: Of the cell.
        metric: Of the cell.
        split: Of the benchmark; empty: sources do not say.
    """
    wanted = {
        "model": model, "method": method, "benchmark": benchmark, "metric": metric, "split": split,
    }  # fmt: skip
    chosen = numbers
    for name, value in wanted.items():
        chosen = chosen[chosen[name] == value]
    if method == "vanilla":
        return chosen
    return chosen[chosen["tokens"].isna() if tokens is None else chosen["tokens"] == tokens]


def bands(numbers: pd.DataFrame) -> pd.DataFrame:
    """The band of every cell with a count of tokens: low, high, values, independent, sources."""
    rows = []
    for key, group in numbers.dropna(subset="tokens").groupby(list(CELL), sort=False):
        found = band(group)
        rows.append({**dict(zip(CELL, _each(key), strict=True)), **vars(found)})
    return pd.DataFrame(rows)


def _each(key: object) -> Sequence[object]:
    assert isinstance(key, tuple)
    return key
