"""Starts the process that measures, and another one where it ends early.

An error of the device, such as a memory fault in a kernel, makes it useless for the whole process,
and a fault in an extension ends the process. The cells that are left then run in a new process.
Imports only the standard library.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.gpu.runner import NOT_REACHED, RUNNING, dumps, write
from experiments.gpu.worker import NO_DEVICE

ROOT = Path(__file__).parents[2]
GRACE = 15.0  # seconds after the time limit until a process that does not end is killed
WORKER = (sys.executable, "-m", "experiments.gpu.worker")


def supervised(path: Path, limit: float, started: float, worker: Sequence[str] = WORKER) -> int:
    """Run processes until all cells of the record at ``path`` have ended or the time is over.

    Args:
        path: Record.
        limit: Seconds that all cells may take together.
        started: Moment from which the limit counts, on the clock of ``time.monotonic``.
        worker: Command of a process, which gets the path and ``started`` as arguments.

    Returns:
        0, or ``NO_DEVICE``.
    """
    while True:
        code = _finished([*worker, str(path), repr(started)], started + limit + GRACE)
        record = json.loads(path.read_text(encoding="utf-8"))
        if code == NO_DEVICE or record.get("finished"):
            return code
        cut = close(record, code)
        record["seconds"] = time.monotonic() - started
        write(path, dumps(record))
        if not cut or record["seconds"] >= limit:
            return 0


def close(record: dict[str, Any], code: int) -> bool:
    """Close the cell in which a process ended.

    Returns:
        Whether a new process can go on with other cells. It cannot if no cell had begun, since a
        new process would end at the same place.
    """
    reason = f"the process ended with {described_code(code)}"
    running = [entry for entry in record.get("cells", ()) if entry["state"] == RUNNING]
    record.setdefault("interruptions", []).append(reason)
    for entry in running:
        step = next(iter(entry["not_reached"]), "start")
        entry["errors"].append({"step": step, "error": f"{reason} at or before it", "where": []})
        entry["state"] = "ended early"
    left = any(entry["state"] == NOT_REACHED for entry in record.get("cells", ()))
    return bool(running) and left


def described_code(code: int) -> str:
    """Describe an exit code."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"signal {-code} ({signal.Signals(-code).name})"
    except ValueError:
        return f"signal {-code}"


def _finished(command: Sequence[str], until: float) -> int:
    """Exit code of a command that is killed at a moment on the clock of ``time.monotonic``."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    with subprocess.Popen(command, cwd=ROOT, env=environment) as process:
        try:
            return process.wait(max(1.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()
        except KeyboardInterrupt:
            process.kill()
            raise
