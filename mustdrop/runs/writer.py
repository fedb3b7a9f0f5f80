"""Writes a run: one process at a time, one line per sample; no sample is lost if it is killed.

Knows neither the model nor the benchmark; :mod:`mustdrop.runs.folder` describes the folder.
"""

import errno
import fcntl
import json
import os
import platform
import time
import traceback
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from mustdrop.runs.disk import Unwritable, replace_text, write_json, writing
from mustdrop.runs.fingerprint import Fingerprint
from mustdrop.runs.folder import JUDGEMENTS, now, read_samples
from mustdrop.runs.repair import code_of, cut_torn_line, status_or_none
from mustdrop.runs.status import failure, slurm_job, unreadable_entry
from mustdrop.runs.timing import Watch, sum_timings

# Seconds for which a run tries to get the lock: a status check holds it for an instant.
PATIENCE = 0.5
# Errors of a file system without locks; there the scheduler must not give a run to two tasks.
NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)


class Busy(ValueError):
    """Another process is writing to this run."""


def note_failure(folder: Path, error: BaseException, message: str) -> None:
    """Write to a run's status why it cannot continue; samples and code fingerprint stay.

    Args:
        folder: Folder of the run; it need not exist yet.
        error: Error with its traceback.
        message: One-sentence reason for the status file.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        before = {"n": 0, "started": now(), **status_or_none(folder)}
        failed = {**failure(error), "error": message, "updated": now()}
        write_json(folder / "status.json", {**before, **failed})


class RunWriter:
    """A run that is being written; a context manager that writes failures to its status and log.

    Attributes:
        folder: Folder of the run.
        samples: Samples by doc_id.
        started: Time when the run was first begun; resuming keeps it, ``force`` resets it.
        wanted: Number of samples requested; None while this is unknown.
        ranks: Number of processes that answer the samples.
        unreadable: Why documents cannot be read, by doc_id; these have no sample.

    Raises:
        Busy: If another process is writing to the run.
        Unwritable: If the folder cannot be written to.
        TornFile: If a sample in the middle is broken, or no file states which code made them.
        ValueError: If the samples were made by other code.
    """

    def __init__(self, folder: Path, mark: Fingerprint, config: str, force: bool = False) -> None:
        self.folder, self.mark, self.wanted, self.ranks = folder, mark, None, 1
        self.unreadable: dict[int, str] = {}
        self._watch: Watch | None = None
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            self._log = (folder / "run.log").open("a", buffering=1)
        try:
            self._lock()
            with writing(folder):
                self._open(config, force)
        except BaseException:
            self._log.close()
            raise

    def _open(self, config: str, force: bool) -> None:
        if force:
            self._put_aside()
        cut = cut_torn_line(self.folder)
        if cut is not None:
            self.log(f"cut a torn line after {cut} bytes of samples.jsonl")
        self._status = code_of(self.folder)
        self.samples = {line["doc_id"]: line for line in read_samples(self.folder)}
        if self.samples:
            self._refuse_other_code()
        self.started = self._status.get("started") or now()
        self._resumed, self._had = now(), len(self.samples)
        replace_text(self.folder / "config.yaml", config)
        # unbuffered: a line that did not fit must not be written again when the file is closed
        self._lines = (self.folder / "samples.jsonl").open("ab", buffering=0)
        self.state("running")

    def __enter__(self) -> "RunWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # the first error matters more than one of writing it down
        with suppress(Unwritable, OSError):
            if isinstance(error, KeyboardInterrupt | SystemExit):
                self.state("stopped")
            elif error is not None:
                self.log("".join(traceback.format_exception(error)).rstrip())
                self.state(**failure(error))
        self._lines.close()
        if self._watch is not None:
            self._watch.close()
        with suppress(OSError):
            self._log.close()

    def add(self, sample: Mapping[str, Any]) -> None:
        """Write one sample to disk before returning.

        Raises:
            Unwritable: If it cannot be written; earlier samples stay complete.
        """
        line = json.dumps(sample).encode() + b"\n"
        before = self._lines.seek(0, os.SEEK_END)
        with writing(self.folder, f"; its {len(self.samples)} samples are safe"):
            try:
                while line:
                    line = line[self._lines.write(line) :]
            except OSError:
                self._lines.truncate(before)
                raise
        self.samples[sample["doc_id"]] = dict(sample)

    def note_unreadable(self, doc_id: int, reason: str) -> None:
        """Name a document without a sample in the status; a resumed run tries it again."""
        self.unreadable[doc_id] = reason
        self.log(f"left out: {reason}")
        self.state("running")

    def finish(self, record: Mapping[str, Any]) -> None:
        """Write the record; a failure leaves no partial file."""
        with writing(self.folder, f"; its {len(self.samples)} samples are safe"):
            write_json(self.folder / "record.json", record)
        self.state("floor" if record["floor"] is not None else "done")

    def expect(self, wanted: int) -> None:
        """Set the number of samples requested, and start the measurement of time."""
        self.wanted, self._watch = wanted, Watch(self.ranks)
        self.state("running")

    def timing(self) -> dict[str, Any] | None:
        """Timing of the samples and load of the machine; None if nothing was measured."""
        before, new = self._status.get("timing"), len(self.samples) - self._had
        return sum_timings(before, self._watch.so_far(new)) if self._watch and new else before

    def state(self, state: str, **more: Any) -> None:
        """Write the status of the run."""
        status = {
            "state": state,
            "n": len(self.samples),
            "wanted": self.wanted,
            "started": self.started,
            "updated": now(),
            "resumed": self._resumed,
            "had": self._had,
            "timing": self.timing(),
            "host": platform.node(),
            "pid": os.getpid(),
            "slurm": slurm_job(),
            **unreadable_entry(self.unreadable),
        }
        with writing(self.folder):
            write_json(
                self.folder / "status.json",
                {**status, **more, "fingerprint": self.mark.id, "code": self.mark.as_dict()},
            )

    def log(self, text: str) -> None:
        """Append a line to run.log."""
        self._log.write(f"{now()} {text}\n")

    def _lock(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                return fcntl.flock(self._log, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                if time.monotonic() > deadline:
                    raise Busy(self._busy_message()) from error
                time.sleep(PATIENCE / 10)
            except OSError as error:
                if error.errno not in NO_LOCKS:
                    raise
                return self.log(f"this file system has no locks ({error.strerror})")

    def _busy_message(self) -> str:
        status = status_or_none(self.folder)
        owner = f" (process {status['pid']} on {status['host']})" if status.get("host") else ""
        return f"another process{owner} is writing to {self.folder}"

    def _refuse_other_code(self) -> None:
        if self._status.get("fingerprint") == self.mark.id:
            return
        stored = self._status.get("code")
        changes = (
            Fingerprint.stored(stored).differences(self.mark)
            if stored
            else ["its status does not state which"]
        )
        more = f"; and {len(changes) - 6} more" if len(changes) > 6 else ""
        raise ValueError(
            f"{self.folder} holds {len(self.samples)} samples of other code, weights or rows "
            f"({'; '.join(changes[:6])}{more}). Samples of different code are not mixed: "
            "force=true starts again and keeps the old samples under another name; or restore the "
            "earlier code, weights and rows"
        )

    def _put_aside(self) -> None:
        """Rename the files of an earlier run: append the first free number."""
        number = 1
        while any(
            (self.folder / f"{name}.{number}").exists() for name in ("samples.jsonl", "record.json")
        ):
            number += 1
        for name in ("samples.jsonl", "record.json", "status.json", "traces", JUDGEMENTS):
            path = self.folder / name
            if path.exists():
                path.rename(self.folder / f"{name}.{number}")
