"""Where a run stands: done, running, failed, stale. Told by its folder alone, at no cost to it.

Knows no scheduler: a job that one calls completed may have failed, and the other way round.
"""

import fcntl
import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from mustdrop.runs.folder import TornFile, finished, read_status

State = Literal["unready", "pending", "running", "stale", "stopped", "failed", "done", "floor"]
SETTLED = ("done", "floor")
# Seconds without a sample after which a run on another machine, whose lock may not be seen from
# here, counts as dead. On this machine the lock tells at once.
SILENCE = 600.0


@dataclass(frozen=True)
class RunStatus:
    """One run.

    Attributes:
        state: ``unready``: it has no config, so it cannot start; ``stale``: it says it is running,
            but its process is gone; ``stopped``: by request.
        n: Samples on disk.
        wanted: Samples it is to have; None while nobody knows.
        rate: Samples a second of the process at work; None without one, or before its first sample.
        where: Machine, and job where it is one.
        error: Of a failed run, in a line.
    """

    state: State
    n: int = 0
    wanted: int | None = None
    rate: float | None = None
    where: str = ""
    error: str = ""

    @property
    def left(self) -> float | None:
        """Seconds until it has all; None where that cannot be told."""
        if self.rate is None or self.wanted is None:
            return None
        return max(self.wanted - self.n, 0) / self.rate


def run_status(folder: Path, limit: int | None, traces: Sequence[int] = ()) -> RunStatus:
    """Where the run in a folder stands, for somebody who asks for ``limit`` samples.

    Args:
        folder: The run's; it need not be there.
        limit: Samples asked for; None: all that the benchmark has.
        traces: Samples whose ledger is asked for.
    """
    record = finished(folder, limit, traces)
    if record is not None:
        state: State = "done" if record["floor"] is None else "floor"
        return RunStatus(state, record["n"], record["n"])
    n = count_samples(folder)
    try:
        told = read_status(folder)
    except TornFile as error:
        return RunStatus("failed", n, limit, error=str(error))
    wanted = told.get("wanted") or limit
    if not told:
        return RunStatus("pending", n, wanted)
    if told["state"] == "running":
        if not alive(folder, told):
            return RunStatus("stale", n, wanted, where=_where(told))
        return RunStatus("running", n, wanted, _rate(folder, told, n), _where(told))
    if told["state"] in ("stopped", "failed"):
        return RunStatus(told["state"], n, wanted, None, _where(told), told.get("error", ""))
    # it was done with fewer samples or traces than are asked for now
    return RunStatus("pending", n, limit)


def count_samples(folder: Path) -> int:
    """Whole lines of a run's samples, those that its ranks have not joined yet among them."""
    paths = [Path(folder) / "samples.jsonl", *_parts(folder)]
    return sum(path.read_bytes().count(b"\n") for path in paths if path.exists())


def _parts(folder: Path) -> list[Path]:
    """The files of ranks at work; those set aside have a number behind their folder's name."""
    return [path for path in Path(folder).glob("parts-*/*.jsonl") if not path.parent.suffix]


def alive(folder: Path, told: dict[str, Any]) -> bool:
    """Whether some process is at work on a run that says it is running."""
    here = told.get("host") == platform.node()
    try:
        return _locked(folder) or (not here and time.time() - _last_sign(folder) < SILENCE)
    except OSError:  # a file system without locks
        return here and Path(f"/proc/{told['pid']}").exists()


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


def _last_sign(folder: Path) -> float:
    told = [Path(folder) / "status.json", Path(folder) / "samples.jsonl"]
    told += _parts(folder)
    return max(path.stat().st_mtime for path in told if path.exists())


def _rate(folder: Path, told: dict[str, Any], n: int) -> float | None:
    new = n - told["had"]
    began = datetime.fromisoformat(told["resumed"]).timestamp()
    spent = _last_sign(folder) - began
    return new / spent if new > 0 and spent > 0 else None


def _where(told: dict[str, Any]) -> str:
    job = told.get("slurm") or {}
    number = job.get("array_job_id", job.get("job_id"))
    task = f"_{job['array_task_id']}" if "array_task_id" in job else ""
    return " ".join(filter(None, [told.get("host"), f"job {number}{task}" if number else ""]))
