"""Published numbers as they lie in ``analysis/reference/``: one number a line, each with a source.

Knows nothing about runs.
"""

from math import nan
from pathlib import Path

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
    frame["line"] = range(2, len(frame) + 2)
    for name, text in (("tokens", "count"), ("value", "number")):
        made = pd.to_numeric(frame[name], errors="coerce")
        wrong = made.isna() & ((frame[name] != "") | (name == "value"))
        if wrong.any():
            line, said = frame.loc[wrong, ["line", name]].iloc[0]
            raise ValueError(f"{path}, line {line}: {name} must be a {text}, got {said!r}")
        frame[name] = made.astype(float)
    found = frame["source"].str.extract(rf"^{PAPER} Table (\d+)", expand=False)
    frame["table"] = pd.to_numeric(found)
    return frame


def paper_table(number: int, path: Path = NUMBERS) -> pd.DataFrame:
    """A table of the MustDrop paper (arXiv:2411.10803): model, budget and method by benchmark.

    The columns are (``paper``, benchmark, metric), so that nothing measured can slip in unseen.

    Raises:
        ValueError: If no number of that table is on record.
    """
    numbers = published(path)
    rows = numbers[numbers["table"] == number].to_dict("records")
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
