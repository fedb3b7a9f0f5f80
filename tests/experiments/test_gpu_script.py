"""What `make gpu` does where things go wrong: no time, an error, a kill, an unfit installation."""

import ast
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from experiments.gpu.__main__ import main
from experiments.gpu.environment import NEEDS, misfits, versions
from experiments.gpu.equality import largest
from experiments.gpu.report import failures, table
from experiments.gpu.runner import GpuCell, GpuStep, NotHere, Runner, dumps

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "experiments" / "gpu"


def run_cells(cells: list[GpuCell], limit: float = 100.0) -> tuple[dict, list[str]]:
    """The record of cells whose steps move a clock of their own, and what was saved on the way."""
    saved: list[str] = []
    record = {"options": {"limit": limit, "device": "cpu"}, "machine": {"nvidia_smi": []}}
    record |= {"versions": versions(), "misfits": [], "started": "", "command": ""}
    record["code"] = {"sources": ""}
    runner = Runner(
        record, limit, lambda now: saved.append(dumps(now)), lambda _: None,
        lambda: CLEARED.append(CLOCK.seconds), CLOCK,
    )  # fmt: skip
    runner.run(cells)
    return record, saved


class Clock:
    """A clock that only steps move."""

    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


CLOCK = Clock()
CLEARED: list[float] = []


def lasting(name: str, seconds: float, needs: tuple[str, ...] = ()) -> GpuStep:
    def run() -> dict:
        CLOCK.seconds += seconds
        return {"kind": "note", "note": name}

    return GpuStep(name, run, needs)


def failing(name: str) -> GpuStep:
    def run() -> dict:
        raise RuntimeError("the device is on fire")

    return GpuStep(name, run)


def test_the_time_limit_cuts_the_list_and_the_table_names_what_was_not_reached():
    first = GpuCell("first", lambda: [lasting("one", 4)])
    second = GpuCell("second", lambda: [lasting("two", 3), lasting("three", 3), lasting("four", 3)])
    record, saved = run_cells([first, second, GpuCell("third", lambda: [lasting("five", 1)])], 9.5)
    assert [entry["state"] for entry in record["cells"]] == [
        "done", "cut by the time limit", "done",
    ]  # fmt: skip
    # "three" would have ended at 10; what is shorter and comes later still fits
    assert record["cells"][1]["not_reached"] == ["three", "four"]
    assert "- second: three; four" in table(record)
    late, _ = run_cells([first, GpuCell("never", lambda: [lasting("six", 1)])], 4)
    assert late["cells"][1] == {"cell": "never", "state": "not reached"}
    assert "- never: not started" in table(late)
    assert all(json.loads(text)["cells"] for text in saved) and len(saved) > 4


def test_a_cell_that_raises_is_recorded_with_its_error_and_the_others_run():
    def broken() -> list[GpuStep]:
        raise ImportError("cannot import name 'LlavaForConditionalGeneration'")

    record, _ = run_cells(
        [
            GpuCell("broken", broken),
            GpuCell("half", lambda: [failing("a"), lasting("b", 1, ("a",)), lasting("c", 1)]),
            GpuCell("whole", lambda: [lasting("d", 1)]),
        ]
    )
    broken_entry, half, whole = record["cells"]
    assert broken_entry["state"] == "failed"
    assert "ImportError: cannot import name" in broken_entry["errors"][0]["error"]
    assert [row["step"] for row in half["rows"]] == ["c"] and half["skipped"] == ["b"]
    assert half["state"] == "done with errors"
    assert "tests/experiments/test_gpu_script.py" in half["errors"][0]["where"][-1]
    assert whole["state"] == "done"
    assert failures(record) == 2
    assert "- half · a: RuntimeError: the device is on fire" in table(record)


def test_memory_is_freed_after_a_step_that_failed_and_after_each_cell():
    CLEARED.clear()
    run_cells([GpuCell("one", lambda: [failing("a"), lasting("b", 1)])])
    assert len(CLEARED) == 2


def test_what_a_machine_cannot_measure_is_a_reason_and_no_failure():
    def small() -> dict:
        raise NotHere("the model needs about 95 GiB, and the device has 24")

    cell = GpuCell("large", lambda: [GpuStep("build", small), lasting("round", 1, ("build",))])
    record, _ = run_cells([cell])
    (entry,) = record["cells"]
    assert entry["state"] == "not possible here" and entry["skipped"] == ["round"]
    assert failures(record) == 0
    text = table(record)
    assert "Not possible here\n- large: the model needs about 95 GiB, and the device has 24" in text


def test_another_process_continues_with_the_cells_that_have_not_begun():
    first, second = (GpuCell(name, lambda: [lasting("step", 1)]) for name in ("first", "second"))
    record, _ = run_cells([first, second])
    record["cells"][1] = {"cell": "second", "state": "not reached"}
    before = record["cells"][0]["rows"]
    Runner(record, 100, lambda _: None, lambda _: None, clock=CLOCK).run([first, second])
    assert record["cells"][0]["rows"] is before
    assert record["cells"][1]["state"] == "done"


def test_a_number_that_is_none_stays_readable_and_is_a_failure():
    assert json.loads(dumps({"error": float("nan")})) == {"error": "nan"}
    assert largest([0.1, float("nan"), 0.2]) != largest([0.1, 0.2]) == 0.2
    row = {"step": "fastv", "kind": "equality", "passed": largest([float("nan")]) <= 1e-5}
    assert failures({"cells": [{"cell": "x", "rows": [row], "errors": []}]}) == 1


KILLED = """
import os, signal, sys
from pathlib import Path
from experiments.gpu.runner import GpuCell, GpuStep, Runner, dumps, write

def die():
    os.kill(os.getpid(), signal.SIGKILL)

path = Path(sys.argv[1])
steps = [GpuStep("one", lambda: {"value": 1}), GpuStep("two", die)]
runner = Runner({}, 60, lambda record: write(path, dumps(record)), lambda position: None)
runner.run([GpuCell("first", lambda: steps), GpuCell("second", lambda: [])])
"""


def test_a_killed_run_leaves_a_whole_record(tmp_path):
    path = tmp_path / "record.json"
    command = [sys.executable, "-c", KILLED, str(path)]
    result = subprocess.run(command, cwd=ROOT, check=False)
    assert result.returncode == -signal.SIGKILL
    first, second = json.loads(path.read_text())["cells"]
    assert first["state"] == "running" and first["rows"] == [{"step": "one", "value": 1}]
    assert second["state"] == "not reached"


def test_an_installation_that_does_not_fit_is_an_error_of_every_cell(tmp_path):
    """In a process whose torch cannot be imported; nothing else of ours is in the way."""
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text("raise ImportError('no libcudart here')")
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    command = [sys.executable, "-m", "experiments.gpu", "--out", str(tmp_path)]
    result = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 1, result.stderr
    (path,) = tmp_path.glob("*.json")
    entries = json.loads(path.read_text())["cells"]
    assert len(entries) == 31
    for entry in entries:
        assert entry["errors"][0]["error"] == "ImportError: no libcudart here"
        assert f"{entry['cell']} · start: ImportError: no libcudart here" in result.stdout


def test_versions_that_do_not_fit_are_a_sentence_each():
    fitting = versions()
    assert misfits(fitting) == []
    sentences = misfits(
        {**fitting, "python": "3.10.4", "torch": "2.5.1+cu121", "transformers": "4.57.0"}
    )
    assert [sentence.split(";")[0] for sentence in sentences] == [
        "Python 3.11 or later is needed", "torch 2.6 or later is needed",
        "transformers 5.x is needed",
    ]  # fmt: skip
    (near,) = misfits({**fitting, "transformers": "5.17.0"})
    assert "5.17.0 is installed" in near
    (none,) = misfits({**fitting, "torch": None})
    assert none == "torch 2.6 or later is needed; it is not installed."
    (missing,) = misfits({**fitting, **dict.fromkeys(NEEDS)})
    assert missing.startswith("einops, jaxtyping, wadler-lindig missing: run `make gpu-needs`")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_device_it_says_so_in_one_sentence(tmp_path, capsys):
    assert main(["--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err == (
        "error: torch sees no CUDA device; --dry-run runs at tiny size on a CPU\n"
    )
    assert main(["--dry-run", "--only", "nothing", "--out", str(tmp_path)]) == 2
    assert "matches no cell; the cells are 'dropping = masking, float32" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_it_begins_without_anything_that_a_machine_may_lack():
    """The modules that run before a cell import the standard library and each other."""
    early = (
        "__main__", "cells", "environment", "progress", "report", "runner", "supervisor",
        "text_table", "time_tables", "worker",
    )  # fmt: skip
    allowed = {*sys.stdlib_module_names, "experiments"}
    for name in early:
        for node in ast.parse((SCRIPT / f"{name}.py").read_text()).body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
                source = getattr(node, "module", None) or names[0]
                assert source.partition(".")[0] in allowed, (name, source)
                if source.startswith("experiments.gpu."):
                    assert source.rpartition(".")[2] in early, (name, source)


def test_make_gpu_builds_no_environment_and_finds_the_folder_that_travels():
    command = ["make", "--dry-run", "gpu", "PYTHON=python-of-the-machine", "ARGS=--dry-run"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    (line,) = [line for line in result.stdout.splitlines() if not line.startswith("make")]
    assert line.endswith("python-of-the-machine -m experiments.gpu --dry-run")
    assert f"{ROOT}/.gpu-needs" in line and ".venv" not in line
    assert ".gpu-needs/" in (ROOT / ".gitignore").read_text().splitlines()
