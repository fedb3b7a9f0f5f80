"""Read the published numbers of ``analysis/reference/``: one number with its source per line.

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
    """Read all published numbers; ``analysis/reference/README.md`` describes the columns.

    ``tokens`` (NaN if the source gives no count) and ``value`` are numbers; the other columns are
    text, empty if unknown. Two columns are added: ``line``, the line in the file, and ``table``,
    the number of the table in the MustDrop paper, if it is from there.

    Raises:
        ValueError: If a column is missing, or a count or value is not a number.
    """
    frame = pd.read_csv(path, dtype=str, keep_default_na=False)
    if list(frame.columns) != list(COLUMNS):
        raise ValueError(f"{path} must have the columns {list(COLUMNS)}, got {list(frame.columns)}")
    rows = []
    for line, row in enumerate(frame.to_dict("records"), 2):
        match = re.match(rf"{PAPER} Table (\d+)", row["source"])
        parsed = {
            "tokens": _number(row, "tokens", f"{path}, line {line}") if row["tokens"] else nan,
            "value": _number(row, "value", f"{path}, line {line}"),
            "line": line,
            "table": int(match[1]) if match else None,
        }
        rows.append({**row, **parsed})
    return pd.DataFrame(rows, columns=[*COLUMNS, "line", "table"])


def _number(row: Mapping[Any, Any], name: str, where: str) -> float:
    try:
        return float(row[name])
    except ValueError as error:
        raise ValueError(f"{where}: {name} must be a number, got {row[name]!r}") from error


def paper_table(number: int, path: Path = NUMBERS) -> pd.DataFrame:
    """Table of the MustDrop paper (arXiv:2411.10803): model, budget and method by benchmark.

    The columns are (``paper``, benchmark, metric), so that measured numbers cannot be mistaken.

    Raises:
        ValueError: If there is no number of that table.
    """
    numbers = published(path)
    rows = [row for row in numbers.to_dict("records") if row["table"] == number]
    if not rows:
        known = sorted({int(table) for table in numbers["table"].dropna()})
        raise ValueError(f"table must be one of {known}, got {number}")
    keys = list(dict.fromkeys((row["model"], row["budget"], row["method"]) for row in rows))
    heads = list(dict.fromkeys(("paper", row["benchmark"], row["metric"]) for row in rows))
    columns = ("model", "budget", "method", "benchmark", "metric")
    values = {tuple(row[name] for name in columns): row["value"] for row in rows}
    return pd.DataFrame(
        [[values.get((*key, *head[1:]), nan) for head in heads] for key in keys],
        index=pd.MultiIndex.from_tuples(keys, names=["model", "budget", "method"]),
        columns=pd.MultiIndex.from_tuples(heads, names=["from", "benchmark", "metric"]),
    )
