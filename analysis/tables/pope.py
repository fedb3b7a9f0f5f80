"""Table of POPE: the numbers of its paper for each split of its questions, and for all together.

Answers are read as lmms-eval reads them: exactly yes or no. Another answer is wrong, and is neither
a yes nor a no in precision, recall and F1. Source: Y. Li et al., arXiv:2305.10355.
"""

from collections.abc import Iterator, Sequence
from math import nan
from typing import Any

import pandas as pd

from analysis.records.cells import RunResult
from analysis.records.sample_rows import plain_texts
from analysis.statistics.intervals import mean_interval
from analysis.statistics.ratios import ratio_interval
from analysis.tables.interval_cells import percent, points_cell
from analysis.tables.sheets import Row, Sheet, group_breaks, name_columns, shared_title
from analysis.tables.summary import ends, run_names

METRIC = "pope_accuracy"
SPLITS = ("random", "popular", "adversarial")
ALL, MEAN = "all", "mean of splits"
NUMBERS = ("accuracy", "precision", "recall", "f1", "yes")


def pope_frame(cells: Sequence[RunResult]) -> pd.DataFrame:
    """One row per run and split, one for all questions, and one for the mean over the splits.

    accuracy, precision, recall, f1: Of the answer yes. yes, neither: Shares of the answers that are
        yes, and that are neither yes nor no. Intervals (not of means): ``_low`` and ``_high``.

    Raises:
        ValueError: If no run is of a benchmark scored as POPE.
    """
    rows = []
    for cell in cells:
        if cell.metric != METRIC:
            continue
        known = cell.samples["type"].dropna().unique()
        splits = sorted(known, key=lambda name: (*SPLITS, name).index(name))
        parts = [_row(cell, name, cell.samples.query("type == @name")) for name in splits]
        if len(parts) > 1:
            parts.append(_mean(cell, parts))
        rows += [*parts, _row(cell, ALL, cell.samples)]
    if not rows:
        raise ValueError(f"no run is of POPE: expected the score {METRIC}, as of benchmark=pope")
    return pd.DataFrame(rows)


def _row(cell: RunResult, split: str, samples: pd.DataFrame) -> dict[str, Any]:
    answer, target = (plain_texts(samples, name) for name in ("answer", "target"))
    yes, no = answer == "yes", answer == "no"
    hit, false, missed = yes & (target == "yes"), yes & (target == "no"), no & (target == "yes")
    images = samples["image"]
    return {
        **run_names(cell),
        "split": split,
        "n": len(samples),
        **ends("accuracy", mean_interval(samples["score"], images)),
        **ends("precision", ratio_interval(hit, hit | false, images)),
        **ends("recall", ratio_interval(hit, hit | missed, images)),
        **ends("f1", ratio_interval(2.0 * hit, 2.0 * hit + false + missed, images)),
        **ends("yes", mean_interval(yes.astype(float), images)),
        "neither": float((~yes & ~no).mean()),
    }


def _mean(cell: RunResult, parts: Sequence[Row]) -> dict[str, Any]:
    """Mean over the splits, each with the same weight."""
    row = {**run_names(cell), "split": MEAN, "n": sum(part["n"] for part in parts)}
    for name in (*NUMBERS, "neither"):
        row[name] = sum(part[name] for part in parts) / len(parts)
    return row | {f"{name}{end}": nan for name in NUMBERS for end in ("_low", "_high")}


def pope_sheet(frame: pd.DataFrame) -> Sheet:
    """Sheet of :func:`pope_frame`."""
    rows: list[Row] = list(frame.to_dict("records"))
    names = name_columns(rows)
    heads = (
        *names, "split", "n", "accuracy, % [95 %]", "precision, % [95 %]", "recall, % [95 %]",
        "F1, % [95 %]", "yes, % [95 %]", "neither, %",
    )  # fmt: skip
    body = tuple(
        (
            *(str(row[name] or "–") for name in names),
            row["split"],
            str(row["n"]),
            *(points_cell(row, name) for name in NUMBERS),
            percent(row["neither"]),
        )
        for row in rows
    )
    return Sheet(shared_title(rows), heads, body, group_breaks(rows), tuple(_notes(rows)))


def _notes(rows: Sequence[Row]) -> Iterator[str]:
    yield (
        "precision, recall, F1: of the answer yes. yes: share of the answers that are yes; half of "
        "the questions have this answer. neither: answers that are neither yes nor no; they are "
        "wrong, and precision, recall and F1 leave them out, as lmms-eval does."
    )
    yield (
        f"{ALL}: all questions together, as lmms-eval's pope_f1_score. {MEAN}: mean of the rows of "
        "the splits. A published number may be the one or the other."
    )
    if {row["split"] for row in rows} == {ALL}:
        yield "These runs do not record the split of a question: run them again with force=true."
