"""Our names, metrics and scales against those of papers, and the band beside a measured cell.

Which of our metrics is which of theirs stands in ``analysis/reference/benchmarks.csv``, how models
and methods are called in ``names.csv``. Measured and published never share a column. Knows nothing
about runs: what is measured arrives as a table.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from math import nan
from typing import Any

import pandas as pd

from analysis.published.bands import NOTHING, Band, Index, Row, band, cell, index
from analysis.published.numbers import PAPER, REFERENCE, published


@dataclass(frozen=True)
class Measure:
    """A metric of ours and what papers call it.

    Attributes:
        benchmark: Ours.
        metric: Ours, of a sample or of a record's ``metrics``.
        factor: Ours times this is on their scale.
        published: Their benchmark, metric and split; empty where there is none.
        comparable: Whether the two are the same thing.
        note: Protocol, or why they are not.
    """

    benchmark: str
    metric: str
    factor: float
    published: tuple[str, str, str]
    comparable: bool
    note: str


@cache
def measures() -> tuple[Measure, ...]:
    """The lines of ``analysis/reference/benchmarks.csv``."""
    frame = pd.read_csv(REFERENCE / "benchmarks.csv", dtype=str, keep_default_na=False)
    return tuple(
        Measure(
            row["benchmark"],
            row["metric"],
            float(row["factor"]),
            (row["published_benchmark"], row["published_metric"], row["published_split"]),
            row["comparable"] == "yes",
            row["note"],
        )
        for row in frame.to_dict("records")
    )


def told(benchmark: str) -> Measure | None:
    """What the paper's tables show of a benchmark of ours; None for one that is not listed.

    The first line of a benchmark counts: the paper's own metric.
    """
    return next((one for one in measures() if one.benchmark == benchmark), None)


def of(benchmark: str, metric: str) -> list[Measure]:
    """What a metric of ours may be held against."""
    return [one for one in measures() if (one.benchmark, one.metric) == (benchmark, metric)]


@cache
def names(kind: str) -> Mapping[str, str]:
    """Ours to theirs, for ``model`` or ``method``."""
    frame = pd.read_csv(REFERENCE / "names.csv", dtype=str, keep_default_na=False)
    rows = frame[frame["kind"] == kind]
    return dict(zip(rows["ours"], rows["published"], strict=True))


def match_published(measured: pd.DataFrame, numbers: pd.DataFrame | None = None) -> pd.DataFrame:
    """Measured cells with what is published about the same model, method, budget and benchmark.

    A budget agrees by its count of tokens; what papers call one is their own count, rarely an
    executed average, so ``ours_executed`` stands beside it.

    Args:
        measured: A table of :func:`analysis.tables.summary`.
        numbers: Of :func:`analysis.published.numbers.published`, by default.

    Returns:
        A row per measured cell: what it is; ours, ours_low, ours_high (on the papers' scale),
        ours_metric, ours_executed; paper, the MustDrop paper's number; published_metric;
        band_low, band_high, band_values, band_independent, band_sources, verdict.
    """
    told = index((published() if numbers is None else numbers).to_dict("records"))
    rows = [row for row in measured.to_dict("records") if row["n"]]
    return pd.DataFrame([_beside(row, told) for row in rows])


def _beside(row: Row, numbers: Index) -> dict[str, Any]:
    found, paper, verdict = NOTHING, nan, "not published"
    known = of(row["benchmark"], row["metric"])
    scale = known[0].factor if known else (100.0 if 0 <= row["accuracy"] <= 1 else 1.0)
    value, low, high = (row[name] * scale for name in ("accuracy", "low", "high"))
    for one in known:
        told, printed = about(row, one, numbers)
        if told.values and (not found.values or one.comparable):
            found, paper = told, printed
            verdict = told.judge(value, low, high) if one.comparable else "not comparable"
    return {
        **{name: row[name] for name in ("model", "benchmark", "method", "budget", "n")},
        "ours": value,
        "ours_low": low,
        "ours_high": high,
        "ours_metric": row["metric"],
        "ours_executed": row["executed_average"],
        "paper": paper,
        "published_metric": " ".join(known[0].published[1:]).strip() if known else "",
        **{f"band_{name}": part for name, part in vars(found).items()},
        "verdict": verdict,
    }


def about(row: Row, one: Measure, numbers: Index) -> tuple[Band, float]:
    """The band of a cell named in our words, and what the MustDrop paper has there."""
    model, method = names("model").get(row["model"]), names("method").get(row["method"])
    if model is None or method is None or not one.published[0]:
        return NOTHING, nan
    budget = str(row["budget"]).removeprefix("t")
    tokens = float(budget) if budget.isdigit() else -1.0
    return located(numbers, model, method, tokens, one.published)


def located(
    numbers: Index,
    model: str,
    method: str,
    tokens: float | None,
    measure: tuple[str, str, str],
) -> tuple[Band, float]:
    """The band of a cell named in their words, and what the MustDrop paper has there."""
    rows = cell(numbers, model, method, tokens, *measure)
    return band(rows), next((row["value"] for row in rows if row["source"].startswith(PAPER)), nan)
