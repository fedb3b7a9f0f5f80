"""Printed claims of the MustDrop paper, recomputed from the cells of its own tables.

A claim has one or more readings: the first is its literal meaning, the others are formulas that
the authors may have used. A claim follows if a reading gives the printed number to its last digit.
Knows nothing about runs: this does not show whether a claim holds on them.

Source: arXiv:2411.10803; ``analysis/reference/printed_claims.yaml``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from analysis.published.bands import Row
from analysis.published.formulas import OF_CELLS, OF_PAIRS
from analysis.published.numbers import REFERENCE, published

CLAIMS = REFERENCE / "printed_claims.yaml"
AVERAGE = "paper-average"
SCORES = ("accuracy", "score_sum", "judge_accuracy", "judge_score")
VERDICTS = ("follows", "follows in another reading", "does not follow")


@dataclass(frozen=True)
class PrintedClaim:
    """Claim that the paper prints.

    Attributes:
        id: Short name.
        quote: Words of the paper.
        where: Section or table of the paper.
        printed: Number or numbers, as printed.
        readings: Readings, each with a description (``says``), a ``formula`` and its cells.
    """

    id: str
    quote: str
    where: str
    printed: tuple[float, ...]
    readings: tuple[Mapping[str, Any], ...]


def printed_claims(path: Path = CLAIMS) -> list[PrintedClaim]:
    """Read the claims of a file.

    Raises:
        ValueError: If a claim lacks a field, or has an unknown formula.
    """
    claims = []
    for row in yaml.safe_load(path.read_text()):
        wanted = {"id", "quote", "where", "printed", "readings"}
        if set(row) != wanted or not row["readings"]:
            raise ValueError(f"{path}: a claim must have {sorted(wanted)}, got {sorted(row)}")
        for reading in row["readings"]:
            if reading["formula"] not in {*OF_CELLS, *OF_PAIRS, "benchmarks"}:
                raise ValueError(f"{path}: {row['id']}: no formula {reading['formula']!r}")
        printed = row["printed"] if isinstance(row["printed"], list) else [row["printed"]]
        readings = tuple(row["readings"])
        claims.append(PrintedClaim(row["id"], row["quote"], row["where"], tuple(printed), readings))
    return claims


def judged(
    claims: Sequence[PrintedClaim] | None = None, numbers: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Judge whether each claim follows from the tables of the paper.

    Returns:
        One row per claim: id, quote, where, printed; verdict, one of :data:`VERDICTS`; given, the
        numbers of the first reading; reading, the description of the reading that agrees (of the
        first if none agrees); and readings, pairs of description and numbers.

    Raises:
        ValueError: If a claim names a cell that is missing or ambiguous.
    """
    known = (published() if numbers is None else numbers).to_dict("records")
    rows = []
    for claim in printed_claims() if claims is None else claims:
        given = [(reading["says"], evaluate(reading, known)) for reading in claim.readings]
        fits = [index for index, (_, values) in enumerate(given) if agrees(claim.printed, values)]
        verdict = VERDICTS[2] if not fits else VERDICTS[0] if fits[0] == 0 else VERDICTS[1]
        rows.append(
            {
                **{name: getattr(claim, name) for name in ("id", "quote", "where", "printed")},
                "verdict": verdict,
                "given": tuple(given[0][1]),
                "reading": given[fits[0] if fits else 0][0],
                "readings": given,
            }
        )
    return pd.DataFrame(rows)


def evaluate(reading: Mapping[str, Any], numbers: Sequence[Row]) -> list[float]:
    """Compute the numbers of one reading of a claim."""
    formula = reading["formula"]
    if formula in OF_CELLS:
        return [OF_CELLS[formula]([_value(cell, numbers) for cell in reading["cells"]])]
    rows = [
        row for row in numbers if row["table"] == reading["table"] and row["benchmark"] != AVERAGE
    ]
    if formula == "benchmarks":
        return [len({row["benchmark"] for row in rows})]
    return OF_PAIRS[formula](_pairs(reading, rows))


def agrees(printed: Sequence[float], given: Sequence[float]) -> bool:
    """Whether numbers round to the printed ones; both ends of a rounding interval count."""
    if len(printed) != len(given):
        return False
    return all(
        abs(ours - theirs) <= 0.5 * 10.0 ** -_digits(theirs) + 1e-9
        for theirs, ours in zip(printed, given, strict=True)
    )


def _digits(number: float) -> int:
    """Number of decimals of a printed number; an int has none."""
    return 0 if isinstance(number, int) else len(repr(number).partition(".")[2])


def _value(cell: Mapping[str, Any], numbers: Sequence[Row]) -> float:
    """Value of one cell; the metric ``tokens`` means the count of tokens of its row."""
    criteria = dict(cell)
    counted = criteria.get("metric") == "tokens"
    if counted:
        del criteria["metric"]
    values = {
        row["tokens" if counted else "value"]
        for row in numbers
        if all(row[name] == value for name, value in criteria.items())
    }
    if len(values) != 1:
        raise ValueError(f"{cell} must name one published number, it names {len(values)}")
    return float(values.pop())


def _pairs(reading: Mapping[str, Any], rows: Sequence[Row]) -> list[tuple[float, float]]:
    """Scores of two methods in every cell that has both."""
    key_columns = ["benchmark", "metric"]
    # rows of an ablation differ in budget; vanilla has a budget that no other method has
    if "vanilla" not in (reading["of"], reading["over"]):
        key_columns.append("budget")
    ours, theirs = (
        {
            tuple(row[name] for name in key_columns): row["value"]
            for row in rows
            if row["method"] == reading[name]
            and row["model"] == reading["model"]
            and row["metric"] in SCORES
        }
        for name in ("of", "over")
    )
    pairs = [(value, theirs[key]) for key, value in ours.items() if key in theirs]
    if not pairs:
        raise ValueError(f"no cell has both {reading['of']} and {reading['over']}")
    return pairs
