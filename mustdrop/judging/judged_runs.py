"""Finished runs as answers to judge, and verdicts as files in their folders.

Makes no call: :mod:`mustdrop.judging.asking` does. A run's file is made from the verdicts of the
cache, and replaced in one step, so that it can be made again at any time.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mustdrop.judging.judge import Judge, OpenAnswer
from mustdrop.judging.verdicts import Unjudged, Verdict
from mustdrop.runs.disk import writing
from mustdrop.runs.folder import JUDGEMENTS, TornFile, now, read_record, read_samples
from mustdrop.runs.judgements import (
    NO_CALL,
    JudgedTotals,
    RunJudgements,
    read_judgements,
    sample_digest,
)

CHARACTERS = 4  # of English text in a token, about
OVERHEAD = 8  # tokens of a call's form, about
FIELDS = ("doc_id", "task", "question", "target", "answer")


@dataclass(frozen=True, eq=False)
class RunAnswers:
    """Answers of a finished run.

    Attributes:
        folder: Folder of the run.
        samples: Samples of the run, with the fields that a judge needs.
        answers: Answers by the key of their verdict, in the order of the samples.
        keys: Key of each sample's verdict.
    """

    folder: Path
    samples: Sequence[Mapping[str, Any]]
    answers: Mapping[str, OpenAnswer]
    keys: Sequence[str]


@dataclass(frozen=True, eq=False)
class JudgingPlan:
    """Answers of several runs, and those that have no verdict yet.

    Attributes:
        runs: Runs with answers.
        samples: Number of samples of all runs.
        distinct: Number of answers that differ in question, target or text.
        missing: Answers without a verdict, by key.
        prompt_tokens: Estimated number of tokens of all prompts, at four characters each.
    """

    runs: Sequence[RunAnswers]
    samples: int
    distinct: int
    missing: Mapping[str, OpenAnswer]
    prompt_tokens: int


def read_answers(folder: Path, judge: Judge) -> RunAnswers | None:
    """Answers of a run; None if the run is not finished, or has no samples by design.

    Raises:
        TornFile: If its record or its samples cannot be read.
        ValueError: If a sample does not have exactly one target.
    """
    record = read_record(folder)
    if record is None or not record["n"]:
        return None
    lines = read_samples(folder)[: record["n"]]
    path = folder / "samples.jsonl"
    if len(lines) < record["n"]:
        raise TornFile(path, f"the record says {record['n']} samples, the file has {len(lines)}")
    if lacking := sorted({name for line in lines for name in FIELDS if name not in line}):
        raise TornFile(path, f"a sample lacks {', '.join(lacking)}")
    samples = [{name: line[name] for name in FIELDS} for line in lines]
    try:
        answers = [OpenAnswer.of(sample) for sample in samples]
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from error
    keys = [answer.key(judge) for answer in answers]
    return RunAnswers(folder, samples, dict(zip(keys, answers, strict=True)), keys)


def plan(runs: Sequence[RunAnswers], judge: Judge, verdicts: Mapping[str, Verdict]) -> JudgingPlan:
    """Answers of these runs that have no verdict yet, each once."""
    answers: dict[str, OpenAnswer] = {}
    for run in runs:
        answers |= run.answers
    missing = {key: answer for key, answer in answers.items() if key not in verdicts}
    tokens = sum(_tokens(judge, answer) for answer in missing.values())
    samples = sum(len(run.samples) for run in runs)
    return JudgingPlan(runs, samples, len(answers), missing, tokens)


def _tokens(judge: Judge, answer: OpenAnswer) -> int:
    messages = judge.messages.messages(answer.question, answer.target, answer.answer)
    characters = sum(len(message["content"]) for message in messages)
    return -(-characters // CHARACTERS) + OVERHEAD


def write_judgements(
    run: RunAnswers, judge: Judge, verdicts: Mapping[str, Verdict], faults: Mapping[str, Unjudged]
) -> JudgedTotals:
    """Write the verdicts of a judge into a run's folder.

    Args:
        run: Run.
        judge: Judge.
        verdicts: Verdicts by key.
        faults: Faults by key, of answers without a verdict.

    Returns:
        Totals of the run.

    Raises:
        Unwritable: If the file cannot be written.
    """
    before = _written(run, judge)
    entries = [
        {
            "doc_id": sample["doc_id"],
            "digest": sample_digest(sample),
            **(_entry(verdicts.get(key), faults.get(key)) or _earlier(before, sample)),
        }
        for sample, key in zip(run.samples, run.keys, strict=True)
    ]
    if before is None or [*before.entries.values()] != entries:
        _write(run.folder, judge, entries)
        before = _written(run, judge)
        assert before is not None
    return before.totals(run.samples)


def _written(run: RunAnswers, judge: Judge) -> RunJudgements | None:
    """Entries of the judge in the run's folder; None if there are none, or a file is torn."""
    try:
        judges = read_judgements(run.folder)
    except TornFile:
        return None
    return next((entry for entry in judges if entry.identity == judge.identity), None)


def _write(folder: Path, judge: Judge, entries: Sequence[Mapping[str, Any]]) -> None:
    """Replace the file of a judge in one step."""
    content = {
        "judge": judge.name, "identity": judge.identity, "updated": now(), "samples": entries,
    }  # fmt: skip
    path = folder / JUDGEMENTS / f"{judge.file_name}.json"
    with writing(folder, "; the verdicts are safe in the cache"):
        path.parent.mkdir(exist_ok=True)
        temporary = path.with_suffix(".tmp")
        with temporary.open("w") as file:
            json.dump(content, file)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)


def _earlier(before: RunJudgements | None, sample: Mapping[str, Any]) -> dict[str, Any]:
    """Reason that an earlier pass gave for a sample without a verdict."""
    entry = {"unjudged": NO_CALL} if before is None else before.entry(sample)
    reason = {name: entry[name] for name in ("unjudged", "detail") if name in entry}
    return reason or {"unjudged": NO_CALL}


def _entry(verdict: Verdict | None, fault: Unjudged | None) -> dict[str, Any]:
    """Entry of a sample in this pass, without its number; empty if the pass did not reach it."""
    if verdict is not None:
        return {"correct": verdict.correct, "score": verdict.score}
    return {} if fault is None else {"unjudged": fault.reason, "detail": fault.detail}
