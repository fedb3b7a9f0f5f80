"""Table of CHAIR: objects that answers name and that are not in the picture.

It reads two scores of each sample, which a task with annotated objects returns: ``objects_named``
and ``objects_absent``, the numbers of objects that the answer names and of those of them that are
not in the picture.

    CHAIR_i = absent objects / named objects, over all answers
    CHAIR_s = share of the answers that name an absent object

Source: A. Rohrbach et al., arXiv:1809.02156, Sec. 3.1.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from analysis.records.cells import RunResult, groups, rescored
from analysis.statistics.intervals import mean_interval
from analysis.statistics.ratios import ratio_interval
from analysis.tables.interval_cells import points_cell
from analysis.tables.sheets import Row, Sheet, group_breaks, name_columns, shared_title
from analysis.tables.summary import arm_difference, control_runs, ends, run_names

NAMED, ABSENT = "objects_named", "objects_absent"


def chair_frame(cells: Sequence[RunResult]) -> pd.DataFrame:
    """One row per run whose task has annotated objects.

    named: Objects that an answer names, mean over answers.
    chair_i, chair_s: See the module. vs_vanilla: Difference of CHAIR_s to vanilla, on the same
        samples. Intervals have the ends ``_low`` and ``_high``.

    Raises:
        ValueError: If no run has annotated objects.
    """
    rows = []
    for members in groups([cell for cell in cells if NAMED in cell["metrics"]]).values():
        counted = [_counted(cell) for cell in members]
        rows += [_row(cell, counted) for cell in counted]
    if not rows:
        raise ValueError(
            f"no run has annotated objects: expected the scores {NAMED} and {ABSENT}, as of "
            "benchmark=pocket_long"
        )
    return pd.DataFrame(rows)


def _counted(cell: RunResult) -> RunResult:
    """A run whose score is 1 for an answer that names an absent object, with both counts."""
    named, absent = (rescored(cell, name).samples["score"] for name in (NAMED, ABSENT))
    samples = cell.samples.assign(score=(absent > 0).astype(float), named=named, absent=absent)
    return replace(cell, samples=samples)


def _row(cell: RunResult, members: Sequence[RunResult]) -> dict[str, Any]:
    samples = cell.samples
    return {
        **run_names(cell),
        "n": len(samples),
        "named": samples["named"].mean(),
        **ends("chair_i", ratio_interval(samples["absent"], samples["named"], samples["image"])),
        **ends("chair_s", mean_interval(samples["score"], samples["image"])),
        **ends("vs_vanilla", arm_difference(cell, control_runs(cell, members, "vanilla"))),
    }


def chair_sheet(frame: pd.DataFrame) -> Sheet:
    """Sheet of :func:`chair_frame`."""
    rows: list[Row] = list(frame.to_dict("records"))
    names = name_columns(rows)
    heads = (
        *names, "n", "objects named", "CHAIR_i, % [95 %]", "CHAIR_s, % [95 %]",
        "Δ vanilla, CHAIR_s [95 %]",
    )  # fmt: skip
    body = tuple(
        (
            *(str(row[name] or "–") for name in names), str(row["n"]), f"{row['named']:.2f}",
            points_cell(row, "chair_i"), points_cell(row, "chair_s"),
            points_cell(row, "vs_vanilla", "+"),
        )
        for row in rows
    )  # fmt: skip
    notes = (
        "CHAIR_i: share of the named objects that are not in the picture. CHAIR_s: share of the "
        "answers that name such an object. Smaller is better; an answer that names few objects has "
        "few chances to name an absent one, so read the number of named objects, too.",
    )
    return Sheet(shared_title(rows), heads, body, group_breaks(rows), notes)
