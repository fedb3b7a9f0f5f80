"""Scores that judges gave to the samples of a run, as if they were the run's own scores.

    judge_accuracy            1 for an answer that the judge calls correct, else 0
    judge_score               score of the judge, from 0 to 5
    judge_accuracy@<judge>    the same, if several judges read the run: name of judge or model

Samples without a verdict are left out: they are neither right nor wrong. Knows nothing about
tables.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mustdrop.runs.judgements import RunJudgements, read_judgements

# Name of the score -> field of a verdict.
FIELDS = {"judge_accuracy": "correct", "judge_score": "score"}


def by_judge(metric: str) -> bool:
    """Whether a score is one that a judge gives."""
    return metric.partition("@")[0] in FIELDS


def on_scale_of_five(metric: str | None) -> bool:
    """Whether a score goes from 0 to 5, so that it is not a share."""
    return metric is not None and metric.partition("@")[0] == "judge_score"


def judged_lines(folder: Path, lines: Sequence[Mapping[str, Any]], metric: str) -> list[dict]:
    """Samples that have a verdict, with the judge's score as their only score.

    Results of control passes are left out, because judges do not read their answers.

    Raises:
        TornFile: If a file of verdicts cannot be read.
        ValueError: If there is no such judge, more than one, or no verdict.
    """
    name, _, wanted = metric.partition("@")
    judge = chosen_judge(folder, wanted)
    judged = []
    for line in lines:
        entry = judge.entry(line)
        if "correct" in entry:
            sample = {**line, "scores": {metric: float(entry[FIELDS[name]])}}
            sample.pop("controls", None)
            judged.append(sample)
    if not judged:
        raise ValueError(f"{folder}: {judge.name} gave no verdict about its answers")
    return judged


def chosen_judge(folder: Path, wanted: str) -> RunJudgements:
    """Judge of a run with this name, or the only one if the name is empty.

    Raises:
        TornFile: If a file of verdicts cannot be read.
        ValueError: If there is no such judge, or more than one.
    """
    judges = read_judgements(folder)
    matches = [
        judge for judge in judges if not wanted or wanted in (judge.name, judge.identity["model"])
    ]
    if len(matches) == 1:
        return matches[0]
    if not judges:
        raise ValueError(f"{folder} has no verdicts: mustdrop judge {folder} makes them")
    names = " or ".join(f"@{judge.name}" for judge in judges)
    raise ValueError(f"{folder}: the score must name one judge, by {names}, got {wanted!r}")
