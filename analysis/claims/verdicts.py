"""Scores that a judge gave to the runs of both arms of a claim.

A run without verdicts is neither right nor wrong: the claim is unjudged. Knows nothing about
statistics.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from analysis.claims.arms import ArmRuns, NotMeasured
from analysis.claims.hypotheses import JudgeScore
from analysis.records.cells import RunResult, judged
from analysis.records.judgements import by_judge, chosen_judge
from mustdrop.runs.judgements import judgement_files


class WithoutVerdicts(NotMeasured):
    """A claim is about a judge's score, and a run has no verdicts of a judge."""


def with_verdicts(
    ours: ArmRuns, theirs: ArmRuns, score: JudgeScore
) -> tuple[ArmRuns, ArmRuns, str]:
    """Both arms with the scores of one judge, and a note if samples have no verdict.

    Raises:
        WithoutVerdicts: If a run has no verdict.
        NotMeasured: If several judges read a run and none is named, or the judges differ.
    """
    cells = (*ours.cells, *theirs.cells)
    lacking = sum(not judgement_files(Path(cell["folder"])) for cell in cells)
    if lacking:
        raise WithoutVerdicts(f"{lacking} of {len(cells)} runs have no verdicts of a judge")
    judges = [_judge(cell) for cell in cells]
    for name, identity in judges[1:]:
        if identity != judges[0][1]:
            raise NotMeasured(f"the runs were judged by {judges[0][0]} and by {name}")
    first, second = (_judged_arm(arm, score) for arm in (ours, theirs))
    arms = (first, second)
    samples = sum(cell["n"] for arm in arms for cell in arm.cells)
    read = sum(len(frame) for arm in arms for frame in arm.frames)
    note = f"{samples - read} of {samples} answers have no verdict" if read < samples else ""
    return first, second, note


def _judge(cell: RunResult) -> tuple[str, Mapping[str, Any]]:
    """Name and identity of the judge whose scores are read."""
    named = cell.metric if cell.metric and by_judge(cell.metric) else ""
    try:
        judge = chosen_judge(Path(cell["folder"]), named.partition("@")[2])
    except ValueError as error:
        raise NotMeasured(str(error)) from error
    return judge.name, judge.identity


def _judged_arm(arm: ArmRuns, score: JudgeScore) -> ArmRuns:
    cells = []
    for cell in arm.cells:
        try:
            read = judged(cell, score)
        except ValueError as error:  # the judge gave no verdict about any answer
            raise WithoutVerdicts(str(error)) from error
        assert read is not None
        cells.append(read)
    return replace(arm, cells=tuple(cells), frames=tuple(cell.samples for cell in cells))
