"""Status of a run: done, running, failed or stale, read from its folder without changing it.

Knows no scheduler: a job that the scheduler calls completed may have failed, and the reverse.
"""

import fcntl
import os
import platform
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from mustdrop.runs.folder import TornFile, finished, read_status

State = Literal[
    "unready", "needs calibration", "pending", "running", "stale", "stopped", "failed", "done",
    "floor",
]  # fmt: skip
SETTLED = ("done", "floor")
# Seconds without a new sample after which a run on another machine counts as dead: its lock may
# not be visible from here. On this machine the lock decides.
SILENCE = 600.0


@dataclass(frozen=True)
class RunStatus:
    """Status of one run.

    Attributes:
        state: State of the run. ``unready``: it has no config, so it cannot start; ``needs
            calibration``: it cannot start because it lacks thresholds; ``stale``: its status is
            running, but its process is gone; ``stopped``: it was stopped by a user.
        n: Number of samples on disk.
        wanted: Number of samples requested; None while this is unknown.
        rate: Samples per second of the running process; None without a process, or before its
            first sample.
        where: Machine, and job if the run is one.
        error: Error of a failed run in one line; of a run that is done, the documents left out.
    """

    state: State
    n: int = 0
    wanted: int | None = None
    rate: float | None = None
    where: str = ""
    error: str = ""

    @property
    def left(self) -> float | None:
        """Estimated seconds until all samples are done; None if unknown."""
        if self.rate is None or self.wanted is None:
            return None
        return max(self.wanted - self.n, 0) / self.rate


def run_status(folder: Path, limit: int | None, traces: Sequence[int] = ()) -> RunStatus:
    """Status of the run in a folder when ``limit`` samples are requested.

    Args:
        folder: Folder of the run; it need not exist.
        limit: Number of samples requested; None for all that the benchmark has.
        traces: Document ids of the samples whose ledger is requested.
    """
    record = finished(folder, limit, traces)
    if record is not None:
        state: State = "done" if record["floor"] is None else "floor"
        return RunStatus(state, record["n"], record["n"], error=left_out(record))
    n = count_samples(folder)
    try:
        status = read_status(folder)
    except TornFile as error:
        return RunStatus("failed", n, limit, error=str(error))
    wanted = status.get("wanted") or limit
    if not status:
        return RunStatus("pending", n, wanted)
    where = _machine_and_job(status)
    if status["state"] == "running":
        if not alive(folder, status):
            return RunStatus("stale", n, wanted, where=where)
        return RunStatus("running", n, wanted, _rate(folder, status, n), where)
    if status["state"] in ("stopped", "failed"):
        return RunStatus(status["state"], n, wanted, None, where, status.get("error", ""))
    # the run was done, but more samples or traces are requested now
    return RunStatus("pending", n, limit)


def left_out(record: Mapping[str, Any]) -> str:
    """Documents of a run that could not be read, in one line; empty without any."""
    documents = record.get("unreadable", ())
    if not documents:
        return ""
    more = f", and {len(documents) - 1} more" if len(documents) > 1 else ""
    return f"left out: {documents[0]['reason']}{more}"


def count_samples(folder: Path) -> int:
    """Number of complete sample lines of a run, including those of ranks not merged yet."""
    paths = [Path(folder) / "samples.jsonl", *_shard_files(folder)]
    return sum(path.read_bytes().count(b"\n") for path in paths if path.exists())


def alive(folder: Path, status: dict[str, Any]) -> bool:
    """Whether a process is at work on a run whose status is running."""
    here = status.get("host") == platform.node()
    try:
        return _locked(folder) or (not here and time.time() - _last_change(folder) < SILENCE)
    except OSError:  # a file system without locks
        return here and Path(f"/proc/{status['pid']}").exists()


def failure(error: BaseException) -> dict[str, str]:
    """Entries of a failed run's status: state, error and traceback."""
    return {
        "state": "failed",
        "error": f"{type(error).__name__}: {error}",
        "traceback": "".join(traceback.format_exception(error)),
    }


def unreadable_entry(reasons: Mapping[int, str]) -> dict[str, list[dict[str, Any]]]:
    """Entry of a status and a record for documents that cannot be read; empty without any."""
    documents = [{"doc_id": doc, "reason": reasons[doc]} for doc in sorted(reasons)]
    return {"unreadable": documents} if documents else {}


def slurm_job() -> dict[str, str]:
    """SLURM's numbers of the job that this process belongs to; empty outside SLURM."""
    names = ("JOB_ID", "ARRAY_JOB_ID", "ARRAY_TASK_ID", "RESTART_COUNT", "JOB_PARTITION")
    values = {name.lower(): os.environ.get(f"SLURM_{name}") for name in names}
    return {name: value for name, value in values.items() if value is not None}


def _shard_files(folder: Path) -> list[Path]:
    """Sample files of the ranks; a number behind the folder's name means that it was put aside."""
    return [path for path in Path(folder).glob("parts-*/*.jsonl") if not path.parent.suffix]


def _locked(folder: Path) -> bool:
    path = Path(folder) / "run.log"
    if not path.exists():
        return False
    with path.open() as log:
        try:
            fcntl.flock(log, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        fcntl.flock(log, fcntl.LOCK_UN)
    return False


def _last_change(folder: Path) -> float:
    paths = [Path(folder) / "status.json", Path(folder) / "samples.jsonl", *_shard_files(folder)]
    return max(path.stat().st_mtime for path in paths if path.exists())


def _rate(folder: Path, status: dict[str, Any], n: int) -> float | None:
    new = n - status["had"]
    began = datetime.fromisoformat(status["resumed"]).timestamp()
    seconds = _last_change(folder) - began
    return new / seconds if new > 0 and seconds > 0 else None


def _machine_and_job(status: dict[str, Any]) -> str:
    job = status.get("slurm") or {}
    number = job.get("array_job_id", job.get("job_id"))
    task = f"_{job['array_task_id']}" if "array_task_id" in job else ""
    return " ".join(filter(None, [status.get("host"), f"job {number}{task}" if number else ""]))
