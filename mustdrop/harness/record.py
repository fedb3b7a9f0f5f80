"""A run on disk, as it is read: its folder, its samples line by line, its record.

    outputs/<experiment>/<model>/<method>/<budget>/<benchmark>[-<image>]-<key>/
      config.yaml    what was asked for, resolved
      status.json    where the run stands, and the code that made its samples
      samples.jsonl  one line a sample, written as soon as it is answered
      record.json    the summary; it appears when the run is done
      traces/        single samples: ledgers, or all that experiments/trace.py keeps (opt-in)
      run.log

The disk is the truth: a killed run goes on at its next sample, a finished one is not run again.
Written by :mod:`mustdrop.harness.run`; imports neither lmms-eval nor hydra nor torch, so that
reading results needs none of them.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

SCHEMA = 1
# Share of the patches asked about that the tokens carry, where a benchmark knows them.
RECALL = ("target_recall_input", "target_recall")
# What may change without making it another run; benchmark.limit too.
UNKEYED = (
    "output_root", "force", "experiment", "launcher", "tracker", "device", "threads", "traces",
)  # fmt: skip


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
    """The samples of a run, finished or not; a line torn by a kill is left out."""
    path = Path(folder) / "samples.jsonl"
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


def read_records(root: Path) -> list[dict[str, Any]]:
    """The records of all finished runs under a folder; ``folder`` says where each lives."""
    return [
        {**json.loads(path.read_text()), "folder": str(path.parent)}
        for path in sorted(Path(root).rglob("record.json"))
    ]


def read_record(folder: Path) -> dict[str, Any] | None:
    """The record of a run; None while it has none."""
    path = Path(folder) / "record.json"
    return json.loads(path.read_text()) if path.exists() else None


def finished(folder: Path, limit: int | None, traces: Sequence[int] = ()) -> dict[str, Any] | None:
    """The record of a run that has all that is asked for; None where work is left.

    Args:
        folder: The run's.
        limit: Samples asked for; None: all that the benchmark has.
        traces: Samples whose ledger is asked for.
    """
    record = read_record(folder)
    if record is None:
        return None
    if record["floor"] is not None:
        return record
    asked = min(record["available"], record["available"] if limit is None else limit)
    lacks_trace = any(not trace_path(folder, doc).exists() for doc in traces if doc < asked)
    return None if record["n"] < asked or lacks_trace else record


def read_status(folder: Path) -> dict[str, Any]:
    """What a run last said of itself; empty before it began."""
    path = Path(folder) / "status.json"
    return json.loads(path.read_text()) if path.exists() else {}


def trace_path(folder: Path, doc_id: int) -> Path:
    """Where the ledger of one sample is kept."""
    return Path(folder) / "traces" / f"{doc_id}.npz"


def now() -> str:
    """Universal time, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
