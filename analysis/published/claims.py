"""Printed claims of the MustDrop paper, recomputed from the cells of its own tables.

A claim has one or more readings: the first is the claim as it is worded, the others what its
authors may have computed. It follows if a reading gives the printed number to its last digit. Knows
nothing about runs: whether a claim holds on ours is another question.

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
    """What the paper prints.

    Attributes:
        id: Short name.
        quote: Its words.
        where: It stands.
        printed: Its number or numbers, as printed.
        readings: Of each, what it ``says``, a ``formula``, and the cells that it needs.
    """

    id: str
    quote: str
    where: str
    printed: tuple[float, ...]
    readings: tuple[Mapping[str, Any], ...]


def printed_claims(path: Path = CLAIMS) -> list[PrintedClaim]:
    """The claims of a file.

    Raises:
        ValueError: If one lacks a field, or has a formula that is not known.
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
    """Whether each claim follows from the paper's tables.

    Returns:
        A row per claim: id, quote, where, printed; verdict, one of :data:`VERDICTS`; given, the
        numbers of the claim as it is worded; reading, what the reading that fits says (as worded
        where none does); and readings, each with its numbers.

    Raises:
        ValueError: If a cell that a claim needs is not on record, or not once.
    """
    told = (published() if numbers is None else numbers).to_dict("records")
    rows = []
    for claim in printed_claims() if claims is None else claims:
        given = [(reading["says"], evaluate(reading, told)) for reading in claim.readings]
        fits = [place for place, (_, got) in enumerate(given) if agrees(claim.printed, got)]
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
    """The numbers that a reading of a claim gives."""
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
    """Whether numbers are the printed ones to their last digit, ends of a rounding included."""
    if len(printed) != len(given):
        return False
    return all(
        abs(ours - theirs) <= 0.5 * 10.0 ** -_digits(theirs) + 1e-9
        for theirs, ours in zip(printed, given, strict=True)
    )


def _digits(number: float) -> int:
    """Decimals of a number as it was written: an int has none."""
    return 0 if isinstance(number, int) else len(repr(number).partition(".")[2])


def _value(cell: Mapping[str, Any], numbers: Sequence[Row]) -> float:
    """Of one cell; the metric ``tokens`` is the count that its row is told for."""
    asked = dict(cell)
    counted = asked.get("metric") == "tokens"
    if counted:
        del asked["metric"]
    values = {
        row["tokens" if counted else "value"]
        for row in numbers
        if all(row[name] == value for name, value in asked.items())
    }
    if len(values) != 1:
        raise ValueError(f"{cell} must name one published number, it names {len(values)}")
    return float(values.pop())


def _pairs(reading: Mapping[str, Any], rows: Sequence[Row]) -> list[tuple[float, float]]:
    """The scores of two methods in every row and column that has both."""
    at = ["benchmark", "metric"]
    # an ablation's rows differ in their budget, and so does vanilla from all
    if "vanilla" not in (reading["of"], reading["over"]):
        at.append("budget")
    ours, theirs = (
        {
            tuple(row[name] for name in at): row["value"]
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
