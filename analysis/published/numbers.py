"""Published numbers as they lie in ``analysis/reference/``: one number a line, each with a source.

Knows nothing about runs.
"""

import re
from collections.abc import Mapping
from math import nan
from pathlib import Path
from typing import Any

import pandas as pd

PAPER = "arXiv:2411.10803"
REFERENCE = Path(__file__).parents[1] / "reference"
NUMBERS = REFERENCE / "published_numbers.csv"
COLUMNS = (
    *("method", "model", "tokens", "budget", "budget_kind", "benchmark", "split", "metric"),
    *("unit", "value", "provenance", "source", "note"),
)
KEY = ("method", "model", "budget", "benchmark", "split", "metric", "unit")


def published(path: Path = NUMBERS) -> pd.DataFrame:
    """All published numbers, a row each; ``analysis/reference/README.md`` tells the columns.

    ``tokens`` (NaN where the source gives no count) and ``value`` are numbers, the rest is text,
    empty where nothing is told. Added are ``line``, that of the file, and ``table``, the table of
    the MustDrop paper that the number stands in.

    Raises:
        ValueError: If a column is missing, or a count or a value is no number.
    """
    frame = pd.read_csv(path, dtype=str, keep_default_na=False)
    if list(frame.columns) != list(COLUMNS):
        raise ValueError(f"{path} must have the columns {list(COLUMNS)}, got {list(frame.columns)}")
    rows = []
    for line, row in enumerate(frame.to_dict("records"), 2):
        found = re.match(rf"{PAPER} Table (\d+)", row["source"])
        told = {
            "tokens": _number(row, "tokens", f"{path}, line {line}") if row["tokens"] else nan,
            "value": _number(row, "value", f"{path}, line {line}"),
            "line": line,
            "table": int(found[1]) if found else None,
        }
        rows.append({**row, **told})
    return pd.DataFrame(rows, columns=[*COLUMNS, "line", "table"])


def _number(row: Mapping[Any, Any], name: str, where: str) -> float:
    try:
        return float(row[name])
    except ValueError as error:
        raise ValueError(f"{where}: {name} must be a number, got {row[name]!r}") from error


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
