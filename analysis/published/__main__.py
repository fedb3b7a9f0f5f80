"""Check and summarise published numbers, or check the paper's claims against its own tables.

mustdrop published                 # check the schema, show where sources disagree most
mustdrop published claims          # show which printed numbers follow from the tables
"""

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table

from analysis.published.bands import bands
from analysis.published.check import check
from analysis.published.claims import VERDICTS, judged
from analysis.published.numbers import NUMBERS

SHOWN = 12  # number of widest bands in the table


def show_numbers(numbers: pd.DataFrame, console: Console) -> None:
    """Print numbers of rows, sources and provenances, and the cells with the widest bands."""
    console.print(
        f"{len(numbers)} numbers of {numbers['source'].nunique()} tables, schema is valid"
    )
    counts = numbers["provenance"].value_counts()
    console.print("provenance: " + ", ".join(f"{count} {name}" for name, count in counts.items()))
    percent = [row for row in numbers.to_dict("records") if row["unit"] == "percent"]
    # averages are left out: papers average over different benchmarks
    disputed = [
        cell
        for cell in bands(percent)
        if cell["values"] > 1 and cell["benchmark"] != "paper-average"
    ]
    table = _table(
        ("model", "method", "tokens", "benchmark", "metric", "band", "values", "independent"),
        f"Widest bands of {len(disputed)} cells whose sources differ, percent",
    )
    disputed.sort(key=lambda cell: cell["low"] - cell["high"])
    for row in disputed[:SHOWN]:
        name = " ".join(filter(None, (row["metric"], row["split"])))
        table.add_row(
            *(row["model"], row["method"], f"{row['tokens']:g}", row["benchmark"], name),
            f"{row['low']:g}–{row['high']:g}",
            *(str(row["values"]), str(row["independent"])),
        )
    console.print(table)


def show_claims(claims: pd.DataFrame, console: Console) -> None:
    """Print every claim, starting with those that do not follow."""
    table = _table(("printed", "verdict", "the tables give", "claim", "where"))
    for verdict in reversed(VERDICTS):
        for row in claims.to_dict("records"):
            if row["verdict"] != verdict:
                continue
            given = "\n".join(f"{_numbers(values)}: {says}" for says, values in row["readings"])
            table.add_row(_numbers(row["printed"]), verdict, given, row["quote"], row["where"])
        table.add_section()
    console.print(table)
    counts = Counter(claims["verdict"])
    console.print(
        f"{len(claims)} claims: "
        + ", ".join(_counted(counts[verdict], verdict) for verdict in VERDICTS)
    )


def _counted(count: int, verdict: str) -> str:
    """Count with its verb: ``1 follows``, ``29 follow``, ``2 do not follow``."""
    verb, _, rest = verdict.partition(" ")
    plural = {"follows": "follow", "does": "do"}[verb]
    return " ".join(filter(None, (str(count), verb if count == 1 else plural, rest)))


def _table(heads: Sequence[str], title: str | None = None) -> Table:
    return Table(*heads, title=title, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)


def _numbers(values: Sequence[float]) -> str:
    return " to ".join(f"{round(value, 2):.10g}" for value in values)


def main(arguments: Sequence[str] | None = None) -> int:
    """Check the published numbers, or judge the printed claims."""
    parser = argparse.ArgumentParser(
        prog="mustdrop published",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("subject", nargs="?", choices=("numbers", "claims"), default="numbers")
    parser.add_argument(
        "--file", type=Path, default=NUMBERS, help="file with the published numbers"
    )
    options = parser.parse_args(arguments)
    console = Console(width=None if sys.stdout.isatty() else 170)
    try:
        numbers = check(options.file)
        if options.subject == "claims":
            show_claims(judged(numbers=numbers), console)
        else:
            show_numbers(numbers, console)
    except (ValueError, FileNotFoundError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
