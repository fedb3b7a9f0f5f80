"""Measures how much a run shared the machine with other processes while it was timed.

Seconds per sample are comparable only if nothing else ran. A run measures its share of CPU time,
from the kernel's count of how long its threads waited for a CPU. It also writes a note into a
folder of this machine while it runs, so that concurrent runs detect each other. Knows no model.
"""

import fcntl
import json
import os
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

KEPT = 86400.0  # seconds after its end for which a run's note is kept


def notes_folder() -> Path:
    """Folder for the notes of this user's runs on this machine."""
    return Path(tempfile.gettempdir()) / f"mustdrop-runs-{os.getuid()}"


class Watch:
    """Measures CPU time and load of a run from the creation of this object on.

    Attributes:
        ranks: Number of processes that share the work of the run.
    """

    def __init__(self, ranks: int = 1) -> None:
        self.ranks = ranks
        self._start, self._began = time.monotonic(), time.time()
        self._cpu, self._load = _cpu_times(), _load()
        self._note = _Note(self._began)

    def so_far(self, samples: int) -> dict[str, Any]:
        """Measurements until now.

        Returns:
            wall_seconds; cpu_seconds of all threads; waited_seconds, in which threads could have
            run but had no CPU (None where the kernel does not count it); load_start and load_end,
            load averages of one minute; cpus, number of CPUs; overlapped, whether another run was
            active on this machine; ranks; samples.
        """
        ran, waited = _cpu_times()
        delayed = None if waited is None or self._cpu[1] is None else waited - self._cpu[1]
        return {
            "wall_seconds": round(time.monotonic() - self._start, 3),
            "cpu_seconds": round(ran - self._cpu[0], 3),
            "waited_seconds": None if delayed is None else round(delayed, 3),
            "load_start": self._load,
            "load_end": _load(),
            "cpus": available_cpus(),
            "overlapped": self._note.overlapped(),
            "ranks": self.ranks,
            "samples": samples,
        }

    def close(self) -> None:
        """Write the end of the run into its note."""
        self._note.close()


def sum_timings(first: Mapping[str, Any] | None, second: Mapping[str, Any]) -> dict[str, Any]:
    """Sum of the measurements of two parts of a run; None where one of them is None."""
    if not first:
        return dict(second)
    added = ("wall_seconds", "cpu_seconds", "waited_seconds", "samples")
    known = {name: (first[name], second[name]) for name in added}
    sums = {name: None if None in pair else round(sum(pair), 3) for name, pair in known.items()}
    overlaps = {first["overlapped"], second["overlapped"]}
    return {
        **second,
        **sums,
        "load_start": first["load_start"],
        "overlapped": True if True in overlaps else None if None in overlaps else False,
        "ranks": max(first["ranks"], second["ranks"]),
    }


class _Note:
    """File with the begin and end of a run on this machine; locked while the run is active."""

    def __init__(self, began: float) -> None:
        self._began, self._file = began, None
        folder = notes_folder()
        with suppress(OSError):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._path = folder / f"{os.getpid()}-{uuid4().hex[:8]}.json"
            self._file = self._path.open("w")
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._write(None)

    def overlapped(self) -> bool | None:
        """Whether another run was active since this one began; None if unknown."""
        if self._file is None:
            return None
        try:
            others = [path for path in self._path.parent.glob("*.json") if path != self._path]
            return any([self._overlaps(path) for path in others])
        except OSError:
            return None

    def close(self) -> None:
        if self._file is not None:
            with suppress(OSError):
                self._write(time.time())
                self._file.close()

    def _write(self, ended: float | None) -> None:
        assert self._file is not None
        self._file.seek(0)
        self._file.truncate()
        json.dump({"began": self._began, "ended": ended}, self._file)
        self._file.flush()

    def _overlaps(self, path: Path) -> bool:
        with suppress(FileNotFoundError), path.open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True  # the other run is active now
            note = _parsed(file.read())
            # the note of a killed run has no end; it was active at least until its last write
            ended = note.get("ended") or path.stat().st_mtime
            if time.time() - ended > KEPT:
                path.unlink(missing_ok=True)
            return ended > self._began
        return False


def _parsed(text: str) -> dict[str, Any]:
    try:
        return json.loads(text)
    except ValueError:  # the run was killed while it wrote the note
        return {}


def _cpu_times() -> tuple[float, float | None]:
    """CPU seconds of this process, and seconds that its threads waited for a CPU."""
    waited = 0
    try:
        for path in Path("/proc/self/task").iterdir():
            with suppress(FileNotFoundError, ProcessLookupError):  # a thread that has just ended
                waited += int((path / "schedstat").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return time.process_time(), None
    return time.process_time(), waited / 1e9 if waited else None


def _load() -> float | None:
    try:
        return round(os.getloadavg()[0], 2)
    except OSError:
        return None


def available_cpus() -> int:
    """Number of CPUs that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1
