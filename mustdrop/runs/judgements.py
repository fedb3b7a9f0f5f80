"""Reads what judges decided about the samples of a run, from the run's folder.

    judgements/<judge>.json   verdicts of one judge, one entry per sample, from mustdrop judge

An entry holds a verdict, or the reason why there is none; a sample without a verdict never counts
as wrong. An entry is valid for the question, target and answer that the judge read: if the sample
was answered again in another way, its entry is ignored. :mod:`mustdrop.judging` writes the files.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mustdrop.runs.folder import JUDGEMENTS, TornFile

# Reason of a sample that no call was made about.
NO_CALL = "no call"


@dataclass(frozen=True)
class RunJudgements:
    """Entries of one judge about one run.

    Attributes:
        name: Name of the judge: its model and its prompt.
        identity: Model, prompt and options of the judge.
        entries: Entries by doc_id. Each has ``digest``, and ``correct`` and ``score``, or
            ``unjudged`` (the reason) and ``detail``.
        updated: Time of the last pass of this judge.
    """

    name: str
    identity: Mapping[str, Any]
    entries: Mapping[int, Mapping[str, Any]]
    updated: str

    def entry(self, sample: Mapping[str, Any]) -> Mapping[str, Any]:
        """Entry of a sample; if there is none for its present answer, the reason is `no call`."""
        entry = self.entries.get(int(sample["doc_id"]))
        if entry is None or entry["digest"] != sample_digest(sample):
            return {"unjudged": NO_CALL}
        return entry

    def totals(self, samples: Sequence[Mapping[str, Any]]) -> "JudgedTotals":
        """Totals over these samples."""
        entries = [self.entry(sample) for sample in samples]
        judged = [entry for entry in entries if "correct" in entry]
        reasons = Counter(entry["unjudged"] for entry in entries if "unjudged" in entry)
        n = len(judged)
        return JudgedTotals(
            n,
            dict(reasons.most_common()),
            sum(entry["correct"] for entry in judged) / n if n else None,
            sum(entry["score"] for entry in judged) / n if n else None,
        )


@dataclass(frozen=True)
class JudgedTotals:
    """Totals of one judge over the samples of a run.

    Attributes:
        judged: Number of samples with a verdict.
        unjudged: Number of samples without a verdict, by reason.
        accuracy: Share of the judged samples that are correct; None if none is judged.
        score: Mean score of the judged samples, from 0 to 5; None if none is judged.
    """

    judged: int
    unjudged: Mapping[str, int]
    accuracy: float | None
    score: float | None

    def __str__(self) -> str:
        n, left = self.judged, sum(self.unjudged.values())
        text = f"judged {n} of {n + left}"
        if self.accuracy is not None:
            text += f" · accuracy {self.accuracy:.3f} · score {self.score:.2f} (of the judged)"
        if left:
            reasons = ", ".join(f"{count} {reason}" for reason, count in self.unjudged.items())
            text += f" · unjudged {left}: {reasons}"
        return text


def judgement_files(folder: Path) -> list[Path]:
    """Files of the judges of a run."""
    return sorted((Path(folder) / JUDGEMENTS).glob("*.json"))


def read_judgements(folder: Path) -> list[RunJudgements]:
    """Entries of all judges of a run; judges whose names agree get their identity's digest, too.

    Raises:
        TornFile: If a file cannot be read.
    """
    files = judgement_files(folder)
    judges = [_read(path) for path in files]
    counts = Counter(judge.name for judge in judges)
    return [
        replace(judge, name=f"{judge.name} #{identity_digest(judge.identity)}")
        if counts[judge.name] > 1
        else judge
        for judge in judges
    ]


def _read(path: Path) -> RunJudgements:
    try:
        content = json.loads(path.read_bytes())
        entries = {int(entry["doc_id"]): entry for entry in content["samples"]}
        for doc, entry in entries.items():
            judged = isinstance(entry.get("correct"), bool) and entry["score"] >= 0
            if not isinstance(entry["digest"], str) or not (judged or entry["unjudged"]):
                raise ValueError(f"the entry of sample {doc} has neither a verdict nor a reason")
        return RunJudgements(content["judge"], content["identity"], entries, content["updated"])
    except (ValueError, KeyError, TypeError) as error:
        raise TornFile(path, f"torn: not a file of verdicts ({error!r})") from error


def sample_digest(sample: Mapping[str, Any]) -> str:
    """Sixteen digits that stand for a sample's question, target and answer."""
    return _digest([sample["question"], str(sample["target"]), sample["answer"]], 16)


def identity_digest(identity: Mapping[str, Any]) -> str:
    """Eight digits that stand for a judge's model, prompt and options."""
    return _digest(dict(identity), 8)


def _digest(value: Any, digits: int) -> str:
    text = json.dumps(value, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:digits]
