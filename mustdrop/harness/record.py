"""A run on disk: its folder, its samples line by line, its record, and whether it may go on.

    outputs/<experiment>/<model>/<method>/<budget>/<benchmark>-<key>/
      config.yaml    what was asked for, resolved
      status.json    where the run stands, and the code that made its samples
      samples.jsonl  one line a sample, written as soon as it is answered
      record.json    the summary; it appears when the run is done
      traces/        ledgers of single samples (opt-in)
      run.log

The disk is the truth: a killed run goes on at its next sample, a finished one is not run again.
Imports neither lmms-eval nor hydra nor torch, so that reading results needs none of them.
"""

import fcntl
import hashlib
import json
import os
import traceback
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from mustdrop.harness.fingerprint import Fingerprint

SCHEMA = 1
# Share of the patches asked about that some token carries, where a benchmark knows them.
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
    return Path(
        config["output_root"],
        config["experiment"],
        config["model"]["name"],
        config["method"]["name"],
        budget["name"] if budget else "none",
        f"{config['benchmark']['name']}-{run_key(config)}",
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


def trace_path(folder: Path, doc_id: int) -> Path:
    """Where the ledger of one sample is kept."""
    return Path(folder) / "traces" / f"{doc_id}.npz"


def now() -> str:
    """Universal time, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


class Run:
    """A run that is being written; a context, so that a failure is told in its status and its log.

    Attributes:
        folder: Where it lives.
        samples: What it holds, by doc_id.
        started: When its first sample was asked for.

    Raises:
        ValueError: If its samples were made by other code, or another process is writing to it.
    """

    def __init__(self, folder: Path, mark: Fingerprint, config: str, force: bool = False) -> None:
        self.folder, self.mark = folder, mark
        folder.mkdir(parents=True, exist_ok=True)
        self._lock()
        if force:
            self._put_aside()
        self._status = self._read_status()
        self._cut_torn_line()
        self.samples = {line["doc_id"]: line for line in read_samples(folder)}
        if self.samples:
            self._refuse_other_code()
        self.started = self._status.get("started") if self.samples else None
        self.started = self.started or now()
        (folder / "config.yaml").write_text(config)
        self._lines = (folder / "samples.jsonl").open("a", buffering=1)
        self.state("running")

    def __enter__(self) -> "Run":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            self.log("".join(traceback.format_exception(error)).rstrip())
            self.state("failed", error=f"{type(error).__name__}: {error}")
        self._lines.close()
        self._log.close()

    def add(self, sample: Mapping[str, Any]) -> None:
        """Write one sample; it is on disk when this returns."""
        self.samples[sample["doc_id"]] = dict(sample)
        self._lines.write(json.dumps(sample) + "\n")
        self._lines.flush()

    def finish(self, record: Mapping[str, Any]) -> None:
        """Write the record, whole or not at all."""
        _write(self.folder / "record.json", record)
        self.state("floor" if record["floor"] is not None else "done")

    def state(self, state: str, **more: Any) -> None:
        """Say where the run stands."""
        told = {"state": state, "n": len(self.samples), "started": self.started, "updated": now()}
        _write(
            self.folder / "status.json",
            {**told, **more, "fingerprint": self.mark.id, "code": self.mark.as_dict()},
        )

    def log(self, text: str) -> None:
        """Add to run.log."""
        self._log.write(f"{now()} {text}\n")

    def _lock(self) -> None:
        self._log = (self.folder / "run.log").open("a", buffering=1)
        try:
            fcntl.flock(self._log, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._log.close()
            raise ValueError(f"another process is writing to {self.folder}") from error

    def _read_status(self) -> dict[str, Any]:
        path = self.folder / "status.json"
        return json.loads(path.read_text()) if path.exists() else {}

    def _cut_torn_line(self) -> None:
        """A process killed in mid-write leaves half a line, which would swallow the next one."""
        path = self.folder / "samples.jsonl"
        if not path.exists():
            return
        whole = path.read_bytes().rfind(b"\n") + 1
        if whole < path.stat().st_size:
            self.log(f"cut a torn line after {whole} bytes of samples.jsonl")
            os.truncate(path, whole)

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
        self._log.close()
        raise ValueError(
            f"{self.folder} holds {len(self.samples)} samples of other code ({shown}). Samples of "
            "two codes are not mixed: force=true starts anew and keeps the old ones aside; or go "
            "back to that code"
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


def _write(path: Path, value: Mapping[str, Any]) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(value, indent=1) + "\n")
    temporary.replace(path)
