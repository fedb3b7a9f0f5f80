"""Match measured cells with published bands: names, metrics and scales of papers.

``analysis/reference/benchmarks.csv`` maps metrics, ``names.csv`` maps models and methods. Measured
and published numbers never share a column. Knows nothing about runs: measured numbers come as a
table.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from math import nan
from typing import Any

import pandas as pd

from analysis.published.bands import NOTHING, Band, Index, Row, band, cell, index
from analysis.published.check import FULL
from analysis.published.numbers import PAPER, REFERENCE, published

SHARE_STEP = 5e-4  # papers print shares in percent with one decimal


@dataclass(frozen=True)
class Measure:
    """Metric of this project and its counterpart in papers.

    Attributes:
        benchmark: Benchmark of this project.
        metric: Metric of this project, of a sample or in the ``metrics`` of a record.
        factor: Factor from the scale of this project to that of papers.
        published: Benchmark, metric and split in papers; empty strings without a counterpart.
        comparable: Whether both measure the same thing.
        note: Protocol, or the reason why they are not comparable.
    """

    benchmark: str
    metric: str
    factor: float
    published: tuple[str, str, str]
    comparable: bool
    note: str


@cache
def measures() -> tuple[Measure, ...]:
    """Read ``analysis/reference/benchmarks.csv``."""
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


def shown_measure(benchmark: str) -> Measure | None:
    """Measure that the paper's tables show for a benchmark; None if the benchmark is not listed.

    It is the first line of the benchmark.
    """
    return next((measure for measure in measures() if measure.benchmark == benchmark), None)


def measures_of(benchmark: str, metric: str) -> list[Measure]:
    """Measures of a metric of this project, comparable or not; any judge's score of this name."""
    plain = metric.partition("@")[0]
    return [m for m in measures() if (m.benchmark, m.metric) == (benchmark, plain)]


@cache
def names(kind: str) -> Mapping[str, str]:
    """Map names of this project to published names, for the kind ``model`` or ``method``."""
    frame = pd.read_csv(REFERENCE / "names.csv", dtype=str, keep_default_na=False)
    rows = frame[frame["kind"] == kind]
    return dict(zip(rows["ours"], rows["published"], strict=True))


def match_published(measured: pd.DataFrame, numbers: pd.DataFrame | None = None) -> pd.DataFrame:
    """Match measured cells with published numbers of the same model, method, budget, benchmark.

    Budgets match by their number of tokens, a share by the number that papers count for it
    (:func:`published_count`). The budget in a paper is the paper's own count and rarely an executed
    average; ``ours_executed`` shows the executed average of the run.

    Args:
        measured: Table of :func:`analysis.tables.summary`.
        numbers: Published numbers; by default :func:`analysis.published.numbers.published`.

    Returns:
        One row per measured cell: its names; ours, ours_low, ours_high (on the scale of papers),
        ours_metric, ours_executed; paper, the number of the MustDrop paper; published_metric;
        band_low, band_high, band_values, band_independent, band_sources, verdict.
    """
    indexed = index((published() if numbers is None else numbers).to_dict("records"))
    rows = [row for row in measured.to_dict("records") if row["n"]]
    return pd.DataFrame([_matched(row, indexed) for row in rows])


def _matched(row: Row, numbers: Index) -> dict[str, Any]:
    best, paper, verdict = NOTHING, nan, "not published"
    candidates = measures_of(row["benchmark"], row["metric"])
    scale = candidates[0].factor if candidates else (100.0 if 0 <= row["accuracy"] <= 1 else 1.0)
    value, low, high = (row[name] * scale for name in ("accuracy", "low", "high"))
    for measure in candidates:
        current, printed = about(row, measure, numbers)
        if current.values and (not best.values or measure.comparable):
            best, paper = current, printed
            verdict = current.judge(value, low, high) if measure.comparable else "not comparable"
    return {
        **{name: row[name] for name in ("model", "benchmark", "method", "budget", "n")},
        "ours": value,
        "ours_low": low,
        "ours_high": high,
        "ours_metric": row["metric"],
        "ours_executed": row["executed_average"],
        "paper": paper,
        "published_metric": " ".join(candidates[0].published[1:]).strip() if candidates else "",
        **{f"band_{name}": part for name, part in vars(best).items()},
        "verdict": verdict,
    }


def about(row: Row, measure: Measure, numbers: Index) -> tuple[Band, float]:
    """Band of a cell in the names of this project, and the number of the MustDrop paper."""
    model, method = names("model").get(row["model"]), names("method").get(row["method"])
    if model is None or method is None or not measure.published[0]:
        return NOTHING, nan
    tokens = published_count(numbers, model, str(row["budget"]))
    if tokens is None and method != "vanilla":
        return NOTHING, nan
    return located(numbers, model, method, tokens, measure.published)


def published_count(numbers: Index, model: str, budget: str) -> float | None:
    """Number of tokens that papers print for a budget of this project; None if there is none.

    A share is one of the tokens that papers count without dropping, 2880 in LLaVA-NeXT: 22.2 % and
    640/2880 are the published 640.

    Args:
        numbers: Published numbers.
        model: Name of the model in papers.
        budget: Name of the budget, such as ``t192`` or ``s22.22``.
    """
    kind, amount = budget[:1], budget[1:]
    if kind == "t" and amount.isdigit():
        return float(amount)
    if kind != "s":
        return None
    share, full = float(amount) / 100, FULL[model]
    known = {row["tokens"] for key, rows in numbers.items() if key[0] == model for row in rows}
    near = [count for count in known if abs(count / full - share) <= SHARE_STEP]
    return min(near, key=lambda count: abs(count / full - share), default=None)


def located(
    numbers: Index,
    model: str,
    method: str,
    tokens: float | None,
    measure: tuple[str, str, str],
) -> tuple[Band, float]:
    """Band of a cell in the names of papers, and the number of the MustDrop paper."""
    rows = cell(numbers, model, method, tokens, *measure)
    return band(rows), next((row["value"] for row in rows if row["source"].startswith(PAPER)), nan)
