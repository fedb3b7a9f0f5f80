"""A run being written: one process at a time, a line a sample, killed at any moment without loss.

Knows neither the model nor the benchmark; what lies in the folder is told in
:mod:`mustdrop.runs.folder`.
"""

import errno
import fcntl
import json
import os
import platform
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from mustdrop.runs.failure import failure, slurm_job
from mustdrop.runs.fingerprint import Fingerprint
from mustdrop.runs.folder import now, read_samples
from mustdrop.runs.repair import code_of, cut_torn_line, status_or_none
from mustdrop.runs.timing import Watch, together

# A look at the lock takes it for an instant, so a run asks for it as long as this, in seconds.
PATIENCE = 0.5
# What a file system without locks answers; there the scheduler has to keep two tasks off one cell.
NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)


class Busy(ValueError):
    """Another process is at work on this run."""


class Unwritable(ValueError):
    """The disk is full, or the folder is not ours to write to."""


def note_failure(folder: Path, error: BaseException, told: str) -> None:
    """Say in a run's status why it cannot go on; its samples and their code stay as they are.

    Args:
        folder: The run's; it need not be there yet.
        error: With its traceback.
        told: The same for whoever reads, in a sentence.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        now_told = {**failure(error), "error": told, "updated": now()}
        known = {"n": 0, "started": now(), **status_or_none(folder)}
        _write(folder / "status.json", {**known, **now_told})


class RunWriter:
    """A run that is being written; a context, so that a failure is told in its status and its log.

    Attributes:
        folder: Where it lives.
        samples: What it holds, by doc_id.
        started: When it was first begun; what resumes it keeps that, ``force`` begins anew.
        wanted: Samples it is to have, once that is known.
        ranks: Number of processes that answer its samples.

    Raises:
        Busy: If another process is writing to it.
        Unwritable: If nothing can be written.
        TornFile: If a sample in the middle is broken, or nothing says which code made them.
        ValueError: If its samples were made by other code.
    """

    def __init__(self, folder: Path, mark: Fingerprint, config: str, force: bool = False) -> None:
        self.folder, self.mark, self.wanted, self.ranks = folder, mark, None, 1
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
        _replace(self.folder / "config.yaml", config)
        # unbuffered: a line that did not fit must not be tried again when the file is closed
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
        # what went wrong is worth more than that it cannot be written down
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
        """Write one sample; it is on disk when this returns.

        Raises:
            Unwritable: If it does not fit; those before it are whole.
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

    def finish(self, record: Mapping[str, Any]) -> None:
        """Write the record, whole or not at all."""
        with writing(self.folder, f"; its {len(self.samples)} samples are safe"):
            _write(self.folder / "record.json", record)
        self.state("floor" if record["floor"] is not None else "done")

    def expect(self, wanted: int) -> None:
        """Say how many samples the run is to have."""
        self.wanted, self._watch = wanted, Watch(self.ranks)
        self.state("running")

    def timing(self) -> dict[str, Any] | None:
        """What shared the machine while its samples were timed; None where nothing is known."""
        before, new = self._status.get("timing"), len(self.samples) - self._had
        return together(before, self._watch.so_far(new)) if self._watch and new else before

    def state(self, state: str, **more: Any) -> None:
        """Say where the run stands."""
        told = {
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
        }
        with writing(self.folder):
            _write(
                self.folder / "status.json",
                {**told, **more, "fingerprint": self.mark.id, "code": self.mark.as_dict()},
            )

    def log(self, text: str) -> None:
        """Add to run.log."""
        self._log.write(f"{now()} {text}\n")

    def _lock(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                return fcntl.flock(self._log, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                if time.monotonic() > deadline:
                    raise Busy(self._occupied()) from error
                time.sleep(PATIENCE / 10)
            except OSError as error:
                if error.errno not in NO_LOCKS:
                    raise
                return self.log(f"this file system has no locks ({error.strerror})")

    def _occupied(self) -> str:
        held = status_or_none(self.folder)
        by = f" (process {held['pid']} on {held['host']})" if held.get("host") else ""
        return f"another process{by} is writing to {self.folder}"

    def _refuse_other_code(self) -> None:
        if self._status.get("fingerprint") == self.mark.id:
            return
        stored = self._status.get("code")
        known = (
            Fingerprint.stored(stored).differences(self.mark)
            if stored
            else ["it says not by which"]
        )
        shown = "; ".join(known[:6]) + (f"; and {len(known) - 6} more" if len(known) > 6 else "")
        raise ValueError(
            f"{self.folder} holds {len(self.samples)} samples of other code, weights or rows "
            f"({shown}). Samples of two are not mixed: force=true starts anew and keeps the old "
            "ones aside; or go back to those"
        )

    def _put_aside(self) -> None:
        """Rename what an earlier run left to the first number that is free."""
        number = 1
        while any(
            (self.folder / f"{name}.{number}").exists() for name in ("samples.jsonl", "record.json")
        ):
            number += 1
        for name in ("samples.jsonl", "record.json", "status.json", "traces"):
            path = self.folder / name
            if path.exists():
                path.rename(self.folder / f"{name}.{number}")


@contextmanager
def writing(folder: Path, kept: str = "") -> Iterator[None]:
    """A context that tells in words what the system says against writing.

    Raises:
        Unwritable: For any of it.
    """
    try:
        yield
    except OSError as error:
        raise Unwritable(
            f"cannot write to {folder}: {error.strerror or error}{kept}; the same command goes on "
            "when that is mended"
        ) from error


def _write(path: Path, value: Mapping[str, Any]) -> None:
    _replace(path, json.dumps(value, indent=1) + "\n")


def _replace(path: Path, text: str) -> None:
    """Whole or not at all, whoever reads meanwhile."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(text)
    temporary.replace(path)
