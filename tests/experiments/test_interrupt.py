"""Ctrl-C ends a command in one sentence, and the same command continues where it was stopped."""

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from experiments import calibrate, sweep
from experiments import run as script
from experiments.cli.errors import FILES_KEPT, SAMPLES_KEPT
from experiments.sweeps.cells import plan
from mustdrop.cli.main import main
from mustdrop.runs.folder import read_samples, read_status

ROOT = Path(__file__).parents[2]
TINY = ("method=fastv", "budget=t64", "benchmark.limit=3", "controls=none")
MANY = ("run", "-m", *TINY, "seed=1,2,3", "batch_size=1")
JOBLIB = ("launcher=joblib", "hydra.launcher.n_jobs=2", "threads=1")
# one sample of each run is written, the next one never is
SLOW = """
import json, time
dumps = json.dumps
def slowly(value, *args, **kwargs):
    if isinstance(value, dict) and value.get("doc_id", 0) >= 1:
        time.sleep(600)
    return dumps(value, *args, **kwargs)
json.dumps = slowly
"""
EARLY = """
import os, signal, sys
class Interrupting:
    def find_spec(self, name, path, target=None):
        if name == "experiments.cli.errors":
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupting())
"""


def start(folder, site, *arguments):
    """Start the command in a process group of its own, with ``site`` run first by its Python."""
    (folder / "sitecustomize.py").write_text(site)
    environment = {
        **os.environ,
        "PYTHONPATH": f"{folder}:{ROOT}:{os.environ.get('PYTHONPATH', '')}",
    }
    environment.pop("PYTHONWARNINGS", None)
    return subprocess.Popen(
        [sys.executable, "-m", "mustdrop.cli", *arguments],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # a shell starts its background jobs, these tests perhaps, with the signal ignored
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )


def interrupt(process, folder, runs=1):
    """Wait until ``runs`` runs have a sample, press ctrl-C, return what was printed."""
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline and process.poll() is None:
        if sum(bool(path.read_text()) for path in folder.rglob("samples.jsonl")) >= runs:
            break
        time.sleep(0.05)
    time.sleep(0.2)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: all processes of the group
    return process.communicate(timeout=60)


def folders(root):
    return [path.parent for path in root.rglob("samples.jsonl")]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "runs"),
    [
        (("run", *TINY, "batch_size=1"), 1),
        (MANY, 1),
        ((*MANY, *JOBLIB), 2),
        (("demo", "batch_size=1"), 1),
    ],
    ids=["run", "multirun", "joblib", "demo"],
)
def test_a_real_process_keeps_its_samples_and_ends_in_the_sentence(arguments, runs, tmp_path):
    process = start(tmp_path, SLOW, *arguments, f"output_root={tmp_path}")
    _, printed = interrupt(process, tmp_path, runs)
    assert process.returncode == 130, printed
    assert "Traceback" not in printed
    assert printed.rstrip().splitlines()[-1] == f"stopped: {SAMPLES_KEPT}"
    assert "pending" not in printed  # cells that had not begun are no news
    kept = folders(tmp_path)
    assert len(kept) == runs
    assert [len(read_samples(folder)) for folder in kept] == [1] * runs
    if "launcher=joblib" not in arguments:  # it kills its workers: they cannot write their status
        assert read_status(kept[0])["state"] == "stopped"


@pytest.mark.slow
def test_the_same_command_continues_from_there(tmp_path):
    arguments = ("run", *TINY, "batch_size=1", f"output_root={tmp_path}")
    interrupt(start(tmp_path, SLOW, *arguments), tmp_path)
    (folder,) = folders(tmp_path)
    before = (folder / "samples.jsonl").read_text()
    again = start(tmp_path, "", *arguments)
    assert again.communicate(timeout=240) and again.returncode == 0
    after = (folder / "samples.jsonl").read_text()
    assert after.startswith(before) and len(read_samples(folder)) == 3


def test_ctrl_c_while_the_command_is_imported_is_a_sentence_too(tmp_path):
    process = start(tmp_path, EARLY, "run")
    _, printed = process.communicate(timeout=60)
    assert (process.returncode, printed) == (130, "stopped before the command started\n")


def stop(*arguments, **keywords):
    raise KeyboardInterrupt


def test_ctrl_c_ends_a_run_in_one_sentence(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(script, "built", stop)
    monkeypatch.setattr(sys, "argv", ["run.py", *TINY, f"output_root={tmp_path}"])
    with pytest.raises(SystemExit) as left:
        script.main()
    assert left.value.code == 130
    assert capsys.readouterr().err == f"stopped: {SAMPLES_KEPT}\n"
    (status,) = tmp_path.rglob("status.json")
    assert json.loads(status.read_text())["state"] == "stopped"


def test_ctrl_c_ends_a_sweep_in_one_sentence_and_no_other_cell_follows(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(script, "built", stop)
    monkeypatch.setattr(sys, "argv", ["run.py", "-m", *TINY, "seed=1,2", f"output_root={tmp_path}"])
    with pytest.raises(SystemExit) as left:
        script.main()
    printed = capsys.readouterr().err.splitlines()
    assert left.value.code == 130
    assert printed[1:] == ["cell 1/2: fastv", f"stopped: {SAMPLES_KEPT}"]


def test_ctrl_c_ends_a_retry_in_the_sentence_and_a_live_table_in_silence(
    tmp_path, monkeypatch, capsys
):
    (cell, *_) = plan("table5", ["model=pocket", "benchmark=pocket_vqa"])
    monkeypatch.setattr(sweep, "plan", lambda *arguments: [cell])
    monkeypatch.setattr(sweep, "retry", stop)
    monkeypatch.setattr(sweep, "show_status", stop)
    assert main(["sweep", "retry", "table5"]) == 130
    assert capsys.readouterr().err == f"stopped: {SAMPLES_KEPT}\n"
    assert main(["sweep", "status", "table5"]) == 130
    assert capsys.readouterr().err == ""


def test_a_calibration_promises_no_samples(monkeypatch, capsys):
    monkeypatch.setattr(calibrate, "calibrate", stop)
    arguments = ["budget=t192", "prefill.alpha=1e-2", "force=true"]
    monkeypatch.setattr(sys, "argv", ["calibrate.py", *arguments])
    with pytest.raises(SystemExit) as left:
        calibrate.main()
    assert left.value.code == 130
    assert capsys.readouterr().err == f"stopped: {FILES_KEPT}\n"


@pytest.mark.parametrize(
    ("command", "kept"), [("demo", SAMPLES_KEPT), ("trace", SAMPLES_KEPT), ("report", FILES_KEPT)]
)
def test_the_sentence_fits_the_command(command, kept, monkeypatch, capsys):
    monkeypatch.setattr("mustdrop.cli.main.import_module", stop)
    assert main([command]) == 130
    assert capsys.readouterr().err == f"stopped: {kept}\n"
