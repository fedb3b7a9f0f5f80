"""A run on disk, as it is read: its folder, its samples line by line, its record.

    outputs/<experiment>/<model>/<method>/<budget>/<benchmark>[-<image>]-<key>/
      config.yaml    what was asked for, resolved
      status.json    where the run stands, and the code that made its samples
      samples.jsonl  one line a sample, written as soon as it is answered
      record.json    the summary; it appears when the run is done
      traces/        single samples: ledgers, or all that experiments/trace.py keeps (opt-in)
      run.log

The disk is the truth: a killed run goes on at its next sample, a finished one is not run again.
Written by :mod:`mustdrop.runs.writer`; imports neither lmms-eval nor hydra nor torch, so that
reading results needs none of them.
"""

import hashlib
import json
import zipfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

SCHEMA = 1
# Share of the patches asked about that the tokens carry, where a benchmark knows them.
RECALL = ("target_recall_input", "target_recall")
# Executed averages within this share of each other are the same budget.
MATCH = 0.01
# Below this share of the CPU that it could have used, somebody else slowed a run down.
LOW_SHARE = 0.9
# What may change without making it another run; benchmark.limit too.
UNKEYED = (
    "output_root", "force", "experiment", "launcher", "tracker", "device", "threads", "traces",
)  # fmt: skip


class TornFile(ValueError):
    """A file of a run cannot be read.

    Attributes:
        path: The file.
        line: Number of the broken line, from 1; None where the file as a whole is broken.
    """

    def __init__(self, path: Path, reason: str, line: int | None = None) -> None:
        self.path, self.line = path, line
        super().__init__(f"{path}{'' if line is None else f', line {line}'}: {reason}")


def run_key(config: Mapping[str, Any]) -> str:
    """Ten digits that stand for everything in a resolved config that decides its results."""
    asked = {name: value for name, value in config.items() if name not in UNKEYED}
    benchmark = {name: value for name, value in asked["benchmark"].items() if name != "limit"}
    told = json.dumps({**asked, "benchmark": benchmark}, sort_keys=True)
    return hashlib.sha256(told.encode()).hexdigest()[:10]


def run_folder(config: Mapping[str, Any]) -> Path:
    """Where a resolved config's run lives."""
    budget = config["budget"]
    told = [config["benchmark"]["name"]]
    if config.get("image"):
        told.append(config["image"]["name"])
    return Path(
        config["output_root"],
        config["experiment"],
        config["model"]["name"],
        config["method"]["name"],
        budget["name"] if budget else "none",
        "-".join([*told, run_key(config)]),
    )


def read_samples(folder: Path) -> list[dict[str, Any]]:
    """The samples of a run, finished or not; a line torn by a kill is left out.

    Raises:
        TornFile: If a line that has its end is no sample.
    """
    return read_lines(Path(folder) / "samples.jsonl")


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The samples of one file, without a last line that lacks its end; none where it is missing.

    Raises:
        TornFile: If a line that has its end is no sample.
    """
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    samples = []
    for number, line in enumerate(lines, 1):
        try:
            sample = json.loads(line)
        except ValueError as error:  # no JSON, or no UTF-8
            raise TornFile(path, f"torn, or no sample ({error})", number) from error
        if not isinstance(sample, dict) or not isinstance(sample.get("doc_id"), int):
            raise TornFile(path, "torn, or no sample (it has no doc_id)", number)
        samples.append(sample)
    return samples


def read_records(root: Path) -> list[dict[str, Any]]:
    """The records of all finished runs under a folder; ``folder`` says where each lives.

    Raises:
        TornFile: If one cannot be read.
    """
    found = sorted(Path(root).rglob("record.json"))
    return [{**_read(path), "folder": str(path.parent)} for path in found]


def read_record(folder: Path) -> dict[str, Any] | None:
    """The record of a run; None while it has none.

    Raises:
        TornFile: If it cannot be read.
    """
    path = Path(folder) / "record.json"
    return _read(path) if path.exists() else None


def finished(folder: Path, limit: int | None, traces: Sequence[int] = ()) -> dict[str, Any] | None:
    """The record of a run that has all that is asked for; None where work is left.

    A torn record, and samples that are fewer than the record says or plainly broken, are work.

    Args:
        folder: The run's.
        limit: Samples asked for; None: all that the benchmark has.
        traces: Samples whose ledger is asked for.
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
    asked = min(record["available"], record["available"] if limit is None else limit)
    lacks_trace = any(not has_trace(folder, doc) for doc in traces if doc < asked)
    return None if record["n"] < asked or lacks_trace else record


def whole_lines(path: Path) -> int:
    """Number of samples in a file, at a glance; 0 if some line begins or ends as no sample does.

    It reads no JSON: a sweep looks at every finished run, and some have 200,000 samples.
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


def read_status(folder: Path) -> dict[str, Any]:
    """What a run last said of itself; empty before it began.

    Raises:
        TornFile: If it cannot be read.
    """
    path = Path(folder) / "status.json"
    return _read(path) if path.exists() else {}


def _read(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except ValueError as error:
        raise TornFile(path, f"torn, or no JSON ({error})") from error
    if not isinstance(value, dict):
        raise TornFile(path, f"torn (it must hold keys and values, got {value!s:.40})")
    return value


def has_trace(folder: Path, doc_id: int) -> bool:
    """Whether the ledger of a sample is kept; a file that is cut short is none."""
    path = trace_path(folder, doc_id)
    return path.exists() and zipfile.is_zipfile(path)


def agree(first: float, second: float, share: float = MATCH) -> bool:
    """Whether two executed averages are the same budget: within this share of the larger."""
    return abs(first - second) <= share * max(first, second)


def cpu_share(timing: Mapping[str, Any]) -> float | None:
    """Share of the time in which a run's threads could run that they ran; None: not known."""
    ran, waited = timing["cpu_seconds"], timing["waited_seconds"]
    return None if waited is None or not ran + waited else ran / (ran + waited)


def shared_machine(record: Mapping[str, Any]) -> bool | None:
    """Whether something else ran while a run was timed: its seconds then compare with nothing.

    Another run of ours overlapped, its work was divided among processes, or it got less than
    :data:`LOW_SHARE` of the CPU. Where the kernel does not count that, a load above the CPUs.

    Returns:
        None where that is not known of all its samples, as of runs from before it was noted.
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
    """Where the ledger of one sample is kept."""
    return Path(folder) / "traces" / f"{doc_id}.npz"


def now() -> str:
    """Universal time, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
