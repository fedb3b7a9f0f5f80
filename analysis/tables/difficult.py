"""Table of the difficult samples: those that vanilla gets wrong on the picture shrunk as much.

A method that keeps a share of the tokens must beat the picture shrunk to this share of its pixels.
But the samples are chosen by the errors of the shrunk picture, so any other method gains on them,
also a bad one, and loses on the rest: regression to the mean. The table therefore shows three fair
comparisons: with random tokens on either part, which did not choose the samples, and with the
shrunk picture on all samples.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from analysis.records.cells import RunResult, agree, groups
from analysis.statistics.intervals import mean_interval
from analysis.tables.interval_cells import points_cell
from analysis.tables.layouts import typed_budget
from analysis.tables.notes import OFF
from analysis.tables.sheets import Row, Sheet, group_breaks, name_columns, shared_title
from analysis.tables.summary import arm_difference, control_differences, ends, run_names

CONTROL = "resized"
HALF = 0.5  # a score below is wrong
PARTS = ("difficult", "rest")
REFERENCES = ("vanilla", "random", "schedule")


def difficult_frame(cells: Sequence[RunResult]) -> pd.DataFrame:
    """One row per run on the unchanged picture and control at its share of the tokens.

    Vanilla has a row for each control. A run without a control has only ``left_out``, the reason.

    share, executed_share: Share of the shrunk picture's pixels, and of the tokens that the run
        executed.
    difficult, rest (_n): Mean score on the samples that the control gets wrong, and on the others.
    vs_resized: Difference to the control on all samples.
    vs_<reference>_<part>: Difference to vanilla, random tokens, and random tokens on the run's
        schedule, on either part; see :func:`analysis.tables.summary.summary`.

    Intervals have the ends ``_low`` and ``_high``.

    Raises:
        ValueError: If no run has a control at its share, or a score is not in [0, 1].
    """
    rows = []
    for members in groups(cells).values():
        controls = [
            cell
            for cell in members
            if cell.image == CONTROL and cell["method"] == "vanilla" and cell.metric is not None
        ]
        for cell in members:
            if cell.image is None and cell.metric is not None:
                rows += _rows(cell, members, controls)
    if not any(not row["left_out"] for row in rows):
        reason = rows[0]["left_out"] if rows else "no run on the unchanged picture"
        raise ValueError(f"no run can be compared with a shrunk picture: {reason}")
    return pd.DataFrame(rows)


def _rows(
    cell: RunResult, members: Sequence[RunResult], controls: Sequence[RunResult]
) -> list[dict[str, Any]]:
    alike = [
        control
        for control in controls
        if control.metric == cell.metric
        and control["config"]["model"] == cell["config"]["model"]
        and (cell["method"] == "vanilla" or _same_share(cell, control))
    ]
    if alike:
        return [_row(cell, members, control) for control in alike]
    if cell["method"] == "vanilla" and controls:
        return []
    return [{**run_names(cell), "metric": cell.metric, "left_out": _reason(cell, controls)}]


def _same_share(cell: RunResult, control: RunResult) -> bool:
    """Whether the budget of a run is the share of the shrunk picture."""
    return bool(cell.budget) and agree(_share(cell.budget, control), _ratio(control))


def _share(tokens: float, control: RunResult) -> float:
    """Share of a number of tokens: the control executes all."""
    return tokens / control.executed


def _ratio(control: RunResult) -> float:
    return float(control["config"]["image"]["ratio"])


def _reason(cell: RunResult, controls: Sequence[RunResult]) -> str:
    budget = "<share>" if cell["budget"] == "none" else typed_budget(cell["budget"])
    command = (
        f"mustdrop run method=vanilla image=resized budget={budget} model={cell['model']} "
        f"benchmark={cell['benchmark']}"
    )
    if not controls:
        return f"no run of vanilla with image=resized in experiment {cell['experiment']}: {command}"
    shares = ", ".join(f"{100 * _ratio(control):.1f} %" for control in controls)
    share = f"{100 * _share(cell.budget, controls[0]):.1f} %" if cell.budget else "no share"
    return f"its budget is {share} of the tokens, and image=resized ran at {shares} only: {command}"


def _row(cell: RunResult, members: Sequence[RunResult], control: RunResult) -> dict[str, Any]:
    for run in (cell, control):
        if not run.samples["score"].between(0, 1).all():
            raise ValueError(f"{run['folder']}: the scores must be in [0, 1], choose another score")
    shared = cell.samples.index.intersection(control.samples.index)
    wrong = control.samples.loc[shared, "score"] < HALF
    row = {
        **run_names(cell),
        "metric": cell.metric,
        "left_out": "",
        "share": _ratio(control),
        "executed_share": _share(cell.executed, control),
        **ends("vs_resized", arm_difference(cell, [control])),
    }
    for part, index in zip(PARTS, (shared[wrong], shared[~wrong]), strict=True):
        reduced = replace(cell, samples=cell.samples.loc[index])
        scores = reduced.samples["score"], reduced.samples["image"]
        row |= ends(part, mean_interval(*scores))
        differences = control_differences(reduced, members)
        for name in REFERENCES:
            row |= ends(f"vs_{name}_{part}", differences[name])
    return row


def difficult_sheet(frame: pd.DataFrame) -> Sheet:
    """Sheet of :func:`difficult_frame`."""
    every: list[Row] = list(frame.to_dict("records"))
    rows = [row for row in every if not row["left_out"]]
    names = name_columns(rows)
    columns = [("vs_resized", "Δ resized, all", "+")]
    for part in PARTS:
        columns.append((part, part, ""))
        columns += [
            (f"vs_{name}_{part}", f"Δ {name}, {part}", "+")
            for name in REFERENCES
            if any(row[f"vs_{name}_{part}_n"] for row in rows)
        ]
    heads = (
        *names,
        "pixels, %",
        "tokens, %",
        "difficult n",
        *(f"{head} [95 %]" for _, head, _ in columns),
    )
    body = tuple(
        (
            *(str(row[name] or "–") for name in names),
            f"{100 * row['share']:.1f}",
            f"{100 * row['executed_share']:.1f}{OFF * _is_off(row)}",
            f"{row['difficult_n']:.0f} of {row['difficult_n'] + row['rest_n']:.0f}",
            *(points_cell(row, name, sign) for name, _, sign in columns),
        )
        for row in rows
    )
    return Sheet(shared_title(rows), heads, body, group_breaks(rows), tuple(_notes(every)))


def _is_off(row: Row) -> bool:
    """Whether a method executed another share of the tokens than its budget."""
    return row["method"] != "vanilla" and not agree(row["executed_share"], row["share"])


def _notes(rows: Sequence[Row]) -> Iterator[str]:
    yield (
        "difficult: samples that vanilla gets wrong (a score below one half) on the picture shrunk "
        "to this share of its pixels; rest: the others. The shrunk picture itself has 0 % of the "
        "difficult and 100 % of the rest by construction (for scores of 0 and 1). So a score above "
        "0 on the difficult samples shows nothing: guesses score there, too, and lose on the rest."
    )
    yield (
        "Compare methods with each other and with random tokens (Δ random, Δ schedule), which did "
        "not choose the samples, and with the shrunk picture on all samples (Δ resized, all). "
        "Differences are in points, on the same samples, with the 95 % interval of the pairs."
    )
    if any(not row["left_out"] and _is_off(row) for row in rows):
        yield f"{OFF}: the executed average is more than 1 % off the budget."
    for row in rows:
        if row["left_out"]:
            yield f"left out: {row['method']} {row['budget']}: {row['left_out']}"
