"""Published numbers, with their sources, and measured ones laid beside them: never in one column.

Sources disagree by up to 25 points about one cell, and many copy their baselines; so what other
papers say is a band, not a target. Knows nothing about runs: what is measured arrives as a table.
"""

import re
from collections.abc import Mapping, Sequence
from math import nan
from pathlib import Path
from typing import Any

import pandas as pd

PAPER = "arXiv:2411.10803"
NUMBERS = Path(__file__).parents[1] / "reference" / "published_numbers.csv"
# The first that a source says counts; of "re-run or copied" no one knows which.
PROVENANCE = {
    "re-run or copied": "",
    "copied": "copied",
    "re-run": "re-run",
    "author-reported": "own",
}
COST = re.compile("time|latency|memory|cache|FLOPs|_ms|relative|retention")
CLOCK = "_mm:ss"


def published(path: Path = NUMBERS) -> pd.DataFrame:
    """All published numbers: method, model, budget, benchmark, metric, value, source.

    Added are ``tokens``, the count that the budget's name tells (NaN for a share of unknown size),
    ``provenance`` (``copied``, ``re-run`` or ``own``, empty where the source does not say), and
    ``table``, the table of the MustDrop paper. Times given as mm:ss are seconds here, under a name
    in ``_s``.

    Raises:
        ValueError: If a column is missing or a value is no number.
    """
    frame = pd.read_csv(path, dtype=str)
    wanted = ["method", "model", "budget", "benchmark", "metric", "value", "source"]
    if list(frame.columns) != wanted:
        raise ValueError(f"{path} must have the columns {wanted}, got {list(frame.columns)}")
    rows = [{**row, **_read(row, path)} for row in frame.to_dict("records")]
    return pd.DataFrame(rows)


def paper_table(number: int, path: Path = NUMBERS) -> pd.DataFrame:
    """A table of the MustDrop paper (arXiv:2411.10803): model, budget and method by benchmark.

    The columns are (``paper``, benchmark, metric), so that nothing measured can slip in unseen.

    Raises:
        ValueError: If no number of that table is on record.
    """
    numbers = published(path)
    rows = [row for row in numbers.to_dict("records") if row["table"] == number]
    if not rows:
        known = sorted({int(table) for table in numbers["table"].dropna()})
        raise ValueError(f"table must be one of {known}, got {number}")
    keys = list(dict.fromkeys((row["model"], row["budget"], row["method"]) for row in rows))
    heads = list(dict.fromkeys(("paper", row["benchmark"], row["metric"]) for row in rows))
    at = ("model", "budget", "method", "benchmark", "metric")
    values = {tuple(row[name] for name in at): row["value"] for row in rows}
    return pd.DataFrame(
        [[values.get((*key, *head[1:]), nan) for head in heads] for key in keys],
        index=pd.MultiIndex.from_tuples(keys, names=["model", "budget", "method"]),
        columns=pd.MultiIndex.from_tuples(heads, names=["from", "benchmark", "metric"]),
    )


def beside(
    measured: pd.DataFrame,
    names: Mapping[str, str] | None = None,
    paper: str = PAPER,
    path: Path = NUMBERS,
) -> pd.DataFrame:
    """Measured cells with what is published about the same model, method, budget and benchmark.

    A budget agrees by its count of tokens; what papers call one is their own count, rarely an
    executed average, so ``ours_executed`` stands beside it. Names agree where their letters and
    digits do.

    Args:
        measured: A table of :func:`analysis.tables.summary`.
        names: Ours to theirs, for models, methods and benchmarks that are spelt otherwise.
        paper: How the sources of the one paper begin whose number gets a column of its own.
        path: The published numbers.

    Returns:
        A row per measured cell: what it is; ours, ours_low, ours_high (in percent where they are
        shares), ours_metric, ours_executed; paper, published_metric, paper_budget; others_low,
        others_high and others_n, the range and number of the other sources with that metric, rows
        that say they are copies left out.
    """
    numbers = published(path).to_dict("records")
    spelt = {_plain(ours): _plain(theirs) for ours, theirs in (names or {}).items()}
    return pd.DataFrame(
        [_beside(row, numbers, spelt, paper) for row in measured.to_dict("records") if row["n"]]
    )


def _beside(
    row: Mapping[Any, Any],
    numbers: Sequence[Mapping[Any, Any]],
    spelt: Mapping[str, str],
    paper: str,
) -> dict[str, Any]:
    wanted = tuple(
        spelt.get(_plain(row[name]), _plain(row[name])) for name in ("model", "method", "benchmark")
    )
    tokens = _tokens(str(row["budget"]).removeprefix("t"))
    found = [
        number
        for number in numbers
        if wanted == tuple(_plain(number[name]) for name in ("model", "method", "benchmark"))
        and (row["method"] == "vanilla" or number["tokens"] == tokens)
        and not COST.search(number["metric"])
    ]
    own = next((number for number in found if number["source"].startswith(paper)), None)
    metric = (own or (found[0] if found else {"metric": ""}))["metric"]
    others = [
        number["value"]
        for number in found
        if not number["source"].startswith(paper)
        and number["metric"] == metric
        and number["provenance"] != "copied"
    ]
    scale = 100.0 if 0 <= row["accuracy"] <= 1 else 1.0
    return {
        **{name: row[name] for name in ("model", "benchmark", "method", "budget", "n")},
        "ours": row["accuracy"] * scale,
        "ours_low": row["low"] * scale,
        "ours_high": row["high"] * scale,
        "ours_metric": row["metric"],
        "ours_executed": row["executed_average"],
        "paper": own["value"] if own else nan,
        "published_metric": metric,
        "paper_budget": own["budget"] if own else "",
        "others_low": min(others, default=nan),
        "others_high": max(others, default=nan),
        "others_n": len(others),
    }


def _read(row: Mapping[Any, Any], path: Path) -> dict[str, Any]:
    """What the texts of a line mean."""
    value, metric, source = row["value"], row["metric"], row["source"]
    try:
        if metric.endswith(CLOCK):
            minutes, seconds = value.split(":")
            value, metric = 60 * int(minutes) + int(seconds), metric.removesuffix(CLOCK) + "_s"
        number = float(value)
    except (ValueError, AttributeError) as error:
        raise ValueError(
            f"{path}: {row['method']}, {row['benchmark']}: no number: {value!r}"
        ) from error
    table = re.match(rf"{re.escape(PAPER)} Table (\d+)", source)
    told = [mark for word, mark in PROVENANCE.items() if word in source]
    return {
        "value": number,
        "metric": metric,
        "tokens": _tokens(row["budget"]),
        "provenance": told[0] if told else "",
        "table": int(table[1]) if table else None,
    }


def _tokens(budget: str) -> float:
    """192 of ``192 (equal avg tokens)``, 136 of ``6.6% (~136 tokens)``; NaN of ``50%``."""
    found = re.match(r"(\d+)(?![\d.]*%)(?: |$)", budget) or re.search(r"~(\d+) tokens", budget)
    return float(found[1]) if found else nan


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", str(name).lower())
