"""A whole experiment from one command: thresholds, runs, tables, claims and the page."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from experiments.sweeps import complete as module
from experiments.sweeps.cells import SweepCell, plan
from experiments.sweeps.complete import calibrations, complete

ROOT = Path(__file__).parents[2]
GIVEN = ("method=mustdrop,random", "budget=t150,t100", "benchmark.limit=8", "workers=0")


def lacking(*words, budget="t64"):
    command = ("calibrate", "model=m", *words, f"budget={budget}")
    return SweepCell(("a=1", f"budget={budget}"), None, None, "no value", command)


def test_one_command_finds_the_thresholds_of_several_budgets():
    cells = [
        lacking("method=x"), lacking("method=x", budget="t192"), lacking("method=y"),
        lacking("method=x"),
        SweepCell(("c=1",), None, None, "no value", ("vtw", "write=true", "model=m")),
        SweepCell(("d=1",), None, None, "another reason"),
    ]  # fmt: skip
    assert calibrations(cells) == [
        ["calibrate", "-m", "model=m", "method=x", "budget=t64,t192"],
        ["calibrate", "-m", "model=m", "method=y", "budget=t64"],
        ["vtw", "write=true", "model=m"],
    ]


def test_a_run_without_thresholds_has_a_state_and_a_command():
    cells = plan("none", GIVEN)
    states = {cell.name: cell.status.state for cell in cells}
    assert list(states.values()).count("needs calibration") == 2
    assert calibrations(cells) == [[
        "calibrate", "-m", "model=pocket", "method=mustdrop", "benchmark=pocket_vqa",
        "prefill.alpha=1.0e-2", "budget=t150,t100",
    ]]  # fmt: skip
    # no command can find them: the benchmark has no split for it, or there is no budget
    for more in ("benchmark=mme", "budget=none"):
        (cell,) = plan("none", ["method=mustdrop", "budget=t150", more])
        assert cell.status.state == "unready" and "has no value" in cell.error


def test_the_steps_follow_each_other_and_what_cannot_run_is_named(tmp_path, monkeypatch):
    steps = []

    def command(words, out=None):
        steps.append(words[0])
        return 0

    monkeypatch.setattr(module, "_mustdrop", command)
    given = [
        "method=mustdrop,random",
        "budget=t150",
        "benchmark.limit=2",
        f"output_root={tmp_path}",
    ]
    ran = []

    def run(cells):
        ran.extend(cell.name for cell in cells)
        return 0

    console = Console(record=True, width=200)
    code = complete(lambda: plan("none", given), run, console)
    assert steps == ["calibrate"] and ran == ["random t150 pocket_vqa"]  # nothing is done yet
    assert code == 1 and "cannot run: " in console.export_text()
    steps.clear()
    ran.clear()
    assert complete(lambda: plan("none", given), run, console, dry_run=True) == 0
    text = console.export_text()
    assert not steps and not ran and "then mustdrop report" in text and "cannot run" not in text


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_an_experiment_is_completed_and_completed_again(tmp_path):
    """In a copy without pyproject.toml, whose thresholds go to its own folder."""
    for name in ("mustdrop", "conf", "experiments", "analysis", "hydra_plugins"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1"}

    def completed():
        return subprocess.run(
            [sys.executable, "-m", "mustdrop.cli", "sweep", "complete", "none", *GIVEN],
            cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip

    done = completed()
    text = done.stdout + done.stderr
    assert done.returncode == 0, text
    assert "calibration 1/1" in text and "4 cells: 0 done, 4 to run" in text
    home = tmp_path / "outputs/run"
    assert (home / "summary.txt").read_text().count("mustdrop") >= 2
    assert (home / "report.html").stat().st_size > 1e4 and (home / "claims.txt").stat().st_size
    again = completed()
    assert again.returncode == 0 and "4 cells: 4 done, 0 to run" in again.stdout
    assert "calibration" not in again.stdout
