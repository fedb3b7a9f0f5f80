"""Table of confidences: calibration of each run, and a graded score with its difference to vanilla.

The confidence of an answer is the probability of all its tokens, with the end token. The graded
score is the probability that the model gave to the right one of yes and no.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from analysis.records.cells import RunResult, groups
from analysis.records.sample_rows import plain_texts
from analysis.statistics.calibration import BINS, calibration
from analysis.statistics.intervals import mean_interval
from analysis.tables.interval_cells import percent, points_cell
from analysis.tables.sheets import Row, Sheet, group_breaks, name_columns, shared_title
from analysis.tables.summary import arm_difference, control_runs, ends, run_names

YES_NO = ("yes", "no")
OLD = "no probabilities of its answers; runs of earlier versions have none, and force=true repeats"
NOT_BINARY = "scores other than 0 and 1, so no answer is right or wrong; --metric chooses another"


def confidence_frame(cells: Sequence[RunResult]) -> pd.DataFrame:
    """One row per run; a run that cannot be rated has only ``left_out``, the reason.

    accuracy, confidence: Share of right answers and mean confidence.
    ece, ece_chance, brier: Expected calibration error, its mean for perfectly calibrated
        confidences of the same values, and Brier score.
    graded, graded_n: Graded score and number of its samples: the questions answered by yes or no.
    vs_vanilla_graded, vs_vanilla_accuracy: Differences to vanilla on these samples: of the graded
        score and of the accuracy.

    Intervals have the ends ``_low`` and ``_high``.

    Raises:
        ValueError: If no run can be rated.
    """
    rows = []
    for members in groups(cells).values():
        rows += [_row(cell, members) for cell in members if cell.metric is not None]
    if not any(not row["left_out"] for row in rows):
        reason = rows[0]["left_out"] if rows else "no samples"
        raise ValueError(f"no run can be rated by confidence: the first has {reason}")
    return pd.DataFrame(rows)


def graded(samples: pd.DataFrame) -> pd.Series:
    """Probability of the right answer to each question with the answer yes or no, else NaN.

    It is the confidence where the answer is right, one minus the confidence where the other of yes
    and no was answered, and 0 where neither was. One minus the confidence also holds what the
    model gave to neither, so it is a bound, and exact for a model that knows only yes and no.
    """
    right, sure = samples["score"] == 1, pd.Series(samples["confidence"])
    other = plain_texts(samples, "answer").isin(YES_NO)
    probability = sure.where(right, (1 - sure).where(other, 0.0))
    return probability.where(plain_texts(samples, "target").isin(YES_NO) & sure.notna())


def _row(cell: RunResult, members: Sequence[RunResult]) -> dict[str, Any]:
    samples = cell.samples
    names = {**run_names(cell), "metric": cell.metric, "n": len(samples)}
    if len(samples) < 2 or np.isnan(samples["confidence"].to_numpy()).any():
        return {**names, "left_out": OLD}
    if not np.isin(samples["score"], (0.0, 1.0)).all():
        return {**names, "left_out": NOT_BINARY}
    rated = calibration(samples["confidence"], samples["score"], samples["image"])
    ours = _on_yes_no(cell)
    arms = [_on_yes_no(arm) for arm in control_runs(cell, members, "vanilla")]
    arms = [arm for arm in arms if len(arm.samples)]
    mean = mean_interval(ours.samples["graded"], ours.samples["image"])
    mean = replace(mean, low=max(mean.low, 0.0), high=min(mean.high, 1.0))  # a probability
    return {
        **names,
        "left_out": "",
        **ends("accuracy", mean_interval(samples["score"], samples["image"])),
        "confidence": samples["confidence"].mean(),
        **ends("ece", rated.error),
        "ece_chance": rated.chance,
        **ends("brier", rated.brier),
        **ends("graded", mean),
        **ends("vs_vanilla_graded", arm_difference(_scored(ours), [*map(_scored, arms)])),
        **ends("vs_vanilla_accuracy", arm_difference(ours, arms)),
    }


def _on_yes_no(cell: RunResult) -> RunResult:
    """A run with only its samples that have a graded score."""
    return replace(cell, samples=cell.samples.assign(graded=graded).dropna(subset=["graded"]))


def _scored(cell: RunResult) -> RunResult:
    """A run with the graded score as its score."""
    return replace(cell, samples=cell.samples.assign(score=cell.samples["graded"]))


def confidence_sheet(frame: pd.DataFrame) -> Sheet:
    """Sheet of :func:`confidence_frame`."""
    every: list[Row] = list(frame.to_dict("records"))
    rows = [row for row in every if not row["left_out"]]
    names = name_columns(rows)
    with_grades = any(row["graded_n"] for row in rows)
    heads = [
        *names, "n", "accuracy, % [95 %]", "confidence, %", "ECE, % [95 %]", "ECE by chance, %",
        "Brier [95 %]",
    ]  # fmt: skip
    if with_grades:
        heads += ["graded n", "graded, % [95 %]", "Δ graded [95 %]", "Δ accuracy, same [95 %]"]
    body = []
    for row in rows:
        line = [
            *(str(row[name] or "–") for name in names), str(row["n"]), points_cell(row, "accuracy"),
            percent(row["confidence"]), points_cell(row, "ece"), percent(row["ece_chance"]),
            _brier(row),
        ]  # fmt: skip
        if with_grades:
            line += [
                str(int(row["graded_n"])), points_cell(row, "graded"),
                points_cell(row, "vs_vanilla_graded", "+"),
                points_cell(row, "vs_vanilla_accuracy", "+"),
            ]  # fmt: skip
        body.append(tuple(line))
    notes = tuple(_notes(every, with_grades))
    return Sheet(shared_title(rows), tuple(heads), tuple(body), group_breaks(rows), notes)


def _brier(row: Row) -> str:
    value, low, high = (row[f"brier{end}"] for end in ("", "_low", "_high"))
    return f"{value:.3f}" if np.isnan(low) else f"{value:.3f} [{low:.3f}, {high:.3f}]"


def _notes(rows: Sequence[Row], with_grades: bool) -> Iterator[str]:
    yield (
        "confidence: probability of all tokens of the answer, with the end token. "
        f"ECE: over {BINS} bins of equal width. ECE by chance: what perfectly calibrated "
        "confidences of the same values show on average. Brier: mean squared difference of "
        "confidence and right (1) or wrong (0); smaller is better."
    )
    if with_grades:
        yield (
            "graded: probability that the model gave to the right one of yes and no. Δ: difference "
            "in points to vanilla on the same samples, of the graded score and of the accuracy, "
            "with the 95 % interval of the pairs."
        )
    for row in rows:
        if row["left_out"]:
            yield f"left out: {row['method']} {row['budget']} has {row['left_out']}."
