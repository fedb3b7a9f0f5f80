"""Verdicts of one judge, shared by all runs: a file to which each verdict is appended at once.

    <folder>/<judge>.jsonl   one line per verdict, with the texts that were judged

A verdict is on the disk before it counts, so a killed pass loses none. One process at a time writes
the file. Answers without a verdict are not stored: the next pass asks about them again.
"""

import fcntl
import json
import os
from pathlib import Path
from types import TracebackType
from typing import Any

from mustdrop.judging.endpoint import JudgeReply
from mustdrop.judging.judge import Judge, OpenAnswer
from mustdrop.judging.verdicts import Verdict
from mustdrop.runs.disk import writing
from mustdrop.runs.folder import TornFile, now
from mustdrop.runs.writer import NO_LOCKS, Busy

LONGEST_TEXT = 2000  # characters of a reply that are stored


def cache_file(folder: Path, judge: Judge) -> Path:
    """File with the verdicts of a judge."""
    return folder / f"{judge.file_name}.jsonl"


def read_verdicts(path: Path) -> dict[str, Verdict]:
    """Verdicts in a file by key, without an incomplete last line; empty if the file is missing.

    Raises:
        TornFile: If a complete line is not a verdict.
    """
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    verdicts = {}
    for number, line in enumerate(lines, 1):
        try:
            entry = json.loads(line)
            verdict = Verdict(entry["correct"] is True, float(entry["score"]))
            if entry["correct"] not in (True, False) or not isinstance(entry["key"], str):
                raise ValueError("correct must be true or false, key a text")
        except (ValueError, KeyError, TypeError) as error:
            raise TornFile(path, f"torn: not a verdict ({error!r})", number) from error
        verdicts[entry["key"]] = verdict
    return verdicts


class VerdictCache:
    """File of verdicts that is open for appending; a context manager.

    Attributes:
        verdicts: Verdicts by key.

    Raises:
        Busy: If another process has the file open.
        Unwritable: If the file cannot be written.
        TornFile: If a line in the middle is not a verdict.
    """

    def __init__(self, folder: Path, judge: Judge) -> None:
        self.path = cache_file(folder, judge)
        self._folder = folder
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            self._lines = self.path.open("ab", buffering=0)
        try:
            self._lock()
            with writing(folder):
                self._cut_torn_line()
            self.verdicts = read_verdicts(self.path)
        except BaseException:
            self._lines.close()
            raise

    def __enter__(self) -> "VerdictCache":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._lines.close()

    def add(self, key: str, answer: OpenAnswer, reply: JudgeReply) -> None:
        """Write one verdict to the disk before returning.

        Raises:
            Unwritable: If it cannot be written; earlier verdicts stay complete.
        """
        line = json.dumps(_entry(key, answer, reply)).encode() + b"\n"
        before = self._lines.seek(0, os.SEEK_END)
        with writing(self._folder, f"; its {len(self.verdicts)} verdicts are safe"):
            try:
                while line:
                    line = line[self._lines.write(line) :]
                os.fsync(self._lines.fileno())
            except OSError:
                self._lines.truncate(before)
                raise
        self.verdicts[key] = reply.verdict

    def _lock(self) -> None:
        try:
            fcntl.flock(self._lines, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Busy(f"another process judges with the verdicts in {self.path}") from error
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise

    def _cut_torn_line(self) -> None:
        """Cut off an incomplete last line, so that no verdict is appended to half of another."""
        text = self.path.read_bytes()
        whole = text.rfind(b"\n") + 1
        if whole < len(text):
            os.truncate(self.path, whole)


def _entry(key: str, answer: OpenAnswer, reply: JudgeReply) -> dict[str, Any]:
    return {
        "key": key,
        "question": answer.question,
        "target": answer.target,
        "answer": answer.answer,
        "correct": reply.verdict.correct,
        "score": reply.verdict.score,
        "reply": reply.text[:LONGEST_TEXT],
        "model": reply.model,
        "tokens": reply.tokens,
        "time": now(),
    }
