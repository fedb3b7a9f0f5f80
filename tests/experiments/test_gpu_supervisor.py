"""A process that ends early does not end the measurements: another one goes on."""

import json
import sys
import time

import pytest

from experiments.gpu.report import failures, table
from experiments.gpu.runner import dumps, write
from experiments.gpu.supervisor import described_code, supervised
from experiments.gpu.worker import BROKEN, NO_DEVICE

# Cells with the names of what they do; `code` ends the process in the middle of a cell.
WORKER = """
import json, os, signal, sys, time
from pathlib import Path
from experiments.gpu.runner import GpuCell, GpuStep, Runner, dumps, write

def fault():
    os.kill(os.getpid(), signal.SIGSEGV)

def broken():
    raise RuntimeError("CUDA error: an illegal memory access was encountered")

def clear():
    if runner.record["cells"][1]["state"] == "running" and "broken" in sys.argv:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

def endless():
    time.sleep(60)

path = Path(sys.argv[-2])
middle = {"fault": fault, "broken": broken, "endless": endless}[sys.argv[1]]
step = lambda name, work=lambda: {"kind": "note"}: GpuStep(name, work)
cells = [
    GpuCell("first", lambda: [step("one")]),
    GpuCell("second", lambda: [step("two"), step("three", middle), step("four")]),
    GpuCell("third", lambda: [step("five")]),
]
record = json.loads(path.read_text())
runner = Runner(record, 100, lambda now: write(path, dumps(now)), lambda _: None, clear)
try:
    runner.run(cells)
except RuntimeError:
    sys.exit(70)
"""


def record_of(tmp_path, kind, limit=100.0):
    path = tmp_path / "record.json"
    options = {"limit": limit, "device": "cpu"}
    record = {"options": options, "machine": {"nvidia_smi": []}, "misfits": [], "started": ""}
    record |= {"command": "", "code": {"sources": ""}}
    record["versions"] = {"python": "", "torch": "", "transformers": ""}
    record["cells"] = [
        {"cell": name, "state": "not reached"} for name in ("first", "second", "third")
    ]
    write(path, dumps(record))
    worker = [sys.executable, "-c", WORKER, kind]
    code = supervised(path, limit, time.monotonic(), worker)
    return code, json.loads(path.read_text())


@pytest.mark.parametrize(
    ("kind", "reason", "lost"),
    [("fault", "signal 11 (SIGSEGV)", ["three", "four"]), ("broken", "exit code 70", ["four"])],
)
def test_the_cells_after_a_dead_process_run_in_a_new_one(tmp_path, kind, reason, lost):
    code, record = record_of(tmp_path, kind)
    first, second, third = record["cells"]
    assert code == 0 and record["finished"]
    assert (first["state"], second["state"], third["state"]) == ("done", "ended early", "done")
    assert [row["step"] for row in second["rows"]] == ["two"]
    assert second["not_reached"] == lost
    assert second["errors"][-1]["error"] == f"the process ended with {reason} at or before it"
    assert record["interruptions"] == [f"the process ended with {reason}"]
    assert failures(record) >= 1
    text = table(record)
    assert f"the process ended with {reason}" in text and f"- second: {'; '.join(lost)}" in text


def test_a_process_that_does_not_end_is_killed_after_the_limit(tmp_path, monkeypatch):
    monkeypatch.setattr("experiments.gpu.supervisor.GRACE", 2.0)
    start = time.monotonic()
    code, record = record_of(tmp_path, "endless", limit=1.0)
    assert code == 0 and time.monotonic() - start < 30
    assert record["cells"][1]["state"] == "ended early"
    assert record["cells"][2]["state"] == "not reached"
    assert "signal 9 (SIGKILL)" in table(record)


def test_a_process_that_ends_before_its_first_cell_is_not_started_again(tmp_path):
    path = tmp_path / "record.json"
    write(path, dumps({"cells": [{"cell": "first", "state": "not reached"}]}))
    log = tmp_path / "log"
    code = f"open({str(log)!r}, 'a').write('x'); raise SystemExit(3)"
    assert supervised(path, 100, time.monotonic(), [sys.executable, "-c", code]) == 0
    assert log.read_text() == "x"
    assert json.loads(path.read_text())["interruptions"] == ["the process ended with exit code 3"]


def test_codes_have_names():
    assert (NO_DEVICE, BROKEN) == (2, 70)
    assert described_code(-9) == "signal 9 (SIGKILL)" and described_code(70) == "exit code 70"
    assert described_code(-1000) == "signal 1000"
