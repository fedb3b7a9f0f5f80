"""Reads a run from disk: its folder, its samples, its record and its status.

    outputs/<experiment>/<model>/<method>/<budget>/<benchmark>[-<image>]-<key>/
      config.yaml    the resolved config
      status.json    the state of the run, and the fingerprint of the code that made its samples
      samples.jsonl  one line per sample, written as soon as it is answered
      record.json    the summary, written when the run is done
      traces/        ledgers of single samples, or the full traces of mustdrop trace (opt-in)
      run.log        messages and tracebacks
      efficiency.json  time, memory and operations, from mustdrop profile
      judgements/    verdicts of judges about the answers, from mustdrop judge

The disk is the truth: a killed run continues at its next sample, and a finished run is not run
again. :mod:`mustdrop.runs.writer` writes the folder. This module imports neither lmms-eval nor
hydra nor torch, so that reading results needs none of them.
"""

import json
import zipfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from mustdrop.runs.key import run_key

SCHEMA = 1
EFFICIENCY = "efficiency.json"
JUDGEMENTS = "judgements"
# Share of the answer's patches that the kept tokens show, where a benchmark knows these patches.
RECALL = ("target_recall_input", "target_recall")
# Two executed averages that differ by at most this share count as the same budget.
MATCH = 0.01
# A run that got less than this share of the CPU time it could use was slowed by other processes.
LOW_SHARE = 0.9


class TornFile(ValueError):
    """A file of a run that cannot be read.

    Attributes:
        path: Path of the file.
        line: Number of the broken line, from 1; None if the file as a whole is broken.
    """

    def __init__(self, path: Path, reason: str, line: int | None = None) -> None:
        self.path, self.line = path, line
        super().__init__(f"{path}{'' if line is None else f', line {line}'}: {reason}")


def run_folder(config: Mapping[str, Any]) -> Path:
    """Folder of the run of a resolved config."""
    budget = config["budget"]
    names = [config["benchmark"]["name"]]
    if config.get("image"):
        names.append(config["image"]["name"])
    return Path(
        config["output_root"],
        config["experiment"],
        config["model"]["name"],
        config["method"]["name"],
        budget["name"] if budget else "none",
        "-".join([*names, run_key(config)]),
    )


def read_samples(folder: Path) -> list[dict[str, Any]]:
    """Samples of a run, finished or not; an incomplete last line is left out.

    Raises:
        TornFile: If a complete line is not a sample.
    """
    return read_lines(Path(folder) / "samples.jsonl")


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Samples of one file, without an incomplete last line; empty if the file is missing.

    Raises:
        TornFile: If a complete line is not a sample.
    """
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    samples = []
    for number, line in enumerate(lines, 1):
        try:
            sample = json.loads(line)
        except ValueError as error:  # invalid JSON or UTF-8
            raise TornFile(path, f"torn: not a sample ({error})", number) from error
        if not isinstance(sample, dict) or not isinstance(sample.get("doc_id"), int):
            raise TornFile(path, "torn: not a sample (it has no doc_id)", number)
        samples.append(sample)
    return samples


def read_records(root: Path) -> list[dict[str, Any]]:
    """Records of all finished runs under a folder; the key ``folder`` holds the run's folder.

    Raises:
        TornFile: If a record cannot be read.
    """
    paths = sorted(Path(root).rglob("record.json"))
    return [{**_read(path), "folder": str(path.parent)} for path in paths]


def read_record(folder: Path) -> dict[str, Any] | None:
    """Record of a run; None before the run is finished.

    Raises:
        TornFile: If the record cannot be read.
    """
    path = Path(folder) / "record.json"
    return _read(path) if path.exists() else None


def finished(folder: Path, limit: int | None, traces: Sequence[int] = ()) -> dict[str, Any] | None:
    """Record of a run that has everything requested; None if work is left.

    A torn record counts as work left, and so do fewer samples than the record states and lines
    that are plainly broken.

    Args:
        folder: Folder of the run.
        limit: Number of samples requested; None for all that the benchmark has.
        traces: Document ids of the samples whose ledger is requested.
    """
    try:
        record = read_record(folder)
    except TornFile:
        return None
    if record is None:
        return None
    if record["floor"] is not None:
        return record
    if whole_lines(Path(folder) / "samples.jsonl") < record["n"]:
        return None
    requested = min(record["available"], record["available"] if limit is None else limit)
    unreadable = {entry["doc_id"] for entry in record.get("unreadable", ())}
    lacks_trace = any(
        not has_trace(folder, doc) for doc in traces if doc < requested and doc not in unreadable
    )
    covered = record["n"] + len(unreadable)
    return None if covered < requested or lacks_trace else record


def whole_lines(path: Path) -> int:
    """Number of samples in a file; 0 if a line does not begin and end as a sample does.

    JSON is not parsed: a sweep checks every finished run, and some have 200,000 samples.
    """
    if not path.exists():
        return 0
    status = path.stat()
    return _whole_lines(path, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=4096)
def _whole_lines(path: Path, changed: int, size: int) -> int:
    text = b"\n" + path.read_bytes()
    text = text[: text.rfind(b"\n") + 1]
    ends = text.count(b"\n") - 1
    whole = text.count(b'\n{"doc_id": ') == text.count(b"}\n") == ends
    return ends if whole else 0


def read_efficiency(folder: Path) -> dict[str, Any] | None:
    """Profile of a run, finished or not; None if it was not profiled.

    Raises:
        TornFile: If the file cannot be read.
    """
    path = Path(folder) / EFFICIENCY
    return _read(path) if path.exists() else None


def read_status(folder: Path) -> dict[str, Any]:
    """Content of a run's status file; empty before the run begins.

    Raises:
        TornFile: If the file cannot be read.
    """
    path = Path(folder) / "status.json"
    return _read(path) if path.exists() else {}


def _read(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except ValueError as error:
        raise TornFile(path, f"torn: not valid JSON ({error})") from error
    if not isinstance(value, dict):
        raise TornFile(path, f"torn: expected a JSON object, got {value!s:.40}")
    return value


def has_trace(folder: Path, doc_id: int) -> bool:
    """Whether the trace file of a sample exists and is a complete archive."""
    path = trace_path(folder, doc_id)
    return path.exists() and zipfile.is_zipfile(path)


def agree(first: float | int, second: float | int, share: float = MATCH) -> bool:
    """Whether two executed averages are the same budget: they differ by at most a share of it."""
    return abs(first - second) <= share * max(first, second)


def cpu_share(timing: Mapping[str, Any]) -> float | None:
    """CPU time of a run's threads over the time they were able to run; None if unknown."""
    ran, waited = timing["cpu_seconds"], timing["waited_seconds"]
    return None if waited is None or not ran + waited else ran / (ran + waited)


def shared_machine(record: Mapping[str, Any]) -> bool | None:
    """Whether a run shared the machine while it was timed, so that its seconds are not comparable.

    True if another run of mustdrop overlapped, if several processes shared the work, or if the
    run got less than :data:`LOW_SHARE` of the CPU time. Where the kernel does not count CPU time,
    a load above the number of CPUs decides.

    Returns:
        None if this is not known for all samples, as for runs older than this measurement.
    """
    timing = record.get("timing")
    if not timing or timing["samples"] is None or timing["samples"] < record["n"]:
        return None
    if timing["overlapped"] or timing["ranks"] > 1:
        return True
    share, loads = cpu_share(timing), (timing["load_start"], timing["load_end"])
    if share is not None:
        low = share < LOW_SHARE
    elif None not in loads:
        low = max(loads) > timing["cpus"]
    else:
        return None
    return True if low else None if timing["overlapped"] is None else False


def trace_path(folder: Path, doc_id: int) -> Path:
    """Path of the trace file of one sample."""
    return Path(folder) / "traces" / f"{doc_id}.npz"


def now() -> str:
    """Current time in UTC, in ISO format, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
