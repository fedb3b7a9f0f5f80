"""Verdicts of judges for a tracker: a few numbers per judge, and a table of the first samples."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mustdrop.runs.judgements import RunJudgements, judgement_files, read_judgements

COLUMNS = (
    "judge", "doc_id", "question", "answer", "prediction", "correct", "score", "unjudged", "metric",
)  # fmt: skip


def judgement_stamp(folder: Path) -> str | None:
    """Times of the last changes of a run's verdicts; None without verdicts."""
    judges = read_judgements(folder) if judgement_files(folder) else []
    return ", ".join(f"{judge.name} {judge.updated}" for judge in judges) or None


def judgement_numbers(
    judges: Sequence[RunJudgements], samples: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Numbers by name: for each judge accuracy and score of the judged samples, and both counts."""
    numbers: dict[str, Any] = {}
    for judge in judges:
        totals = judge.totals(samples)
        values = {
            "accuracy": totals.accuracy, "score": totals.score, "judged": totals.judged,
            "unjudged": sum(totals.unjudged.values()),
        }  # fmt: skip
        numbers |= {
            f"judge/{judge.name}/{name}": value
            for name, value in values.items()
            if value is not None
        }
    return numbers


def judgement_rows(
    judges: Sequence[RunJudgements], samples: Sequence[Mapping[str, Any]], metric: str
) -> list[list[Any]]:
    """Rows of the table, in the order of :data:`COLUMNS`; the last column is the run's metric."""
    return [
        [
            judge.name, line["doc_id"], line["question"], str(line["target"]), line["answer"],
            entry.get("correct"), entry.get("score"), entry.get("unjudged"),
            line["scores"].get(metric),
        ]
        for judge in judges
        for line in samples
        for entry in [judge.entry(line)]
    ]  # fmt: skip
