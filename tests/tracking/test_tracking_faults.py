"""Whatever happens to a tracker or its server, the run never notices and the disk is whole."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import wandb_log
import yaml
from tracked import Folder, clean, gone, logs, node, only, served, waited
from wandb_server import HANG, KEY

from experiments import sync
from experiments.run import main, run
from experiments.tracking.follow import watched
from mustdrop.presets.compose import composed, resolved
from mustdrop.runs.folder import read_samples, run_folder
from mustdrop.tracking import process as watching
from mustdrop.tracking.process import Watched
from mustdrop.tracking.wandb_sink import WandB

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def nobodys(monkeypatch, tmp_path):
    clean(monkeypatch, tmp_path)


@pytest.fixture
def server(monkeypatch, nobodys):
    with served(monkeypatch) as server:
        yield server


@pytest.mark.parametrize(
    "trouble",
    [
        "no key",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("unreachable", "refused")),
    ],
)
def test_a_server_that_cannot_be_had_means_offline_and_one_warning(
    trouble, tmp_path, monkeypatch, request
):
    if trouble == "no key":
        server = request.getfixturevalue("server")
        monkeypatch.delenv("WANDB_API_KEY")
        told = "No API key configured"
    elif trouble == "refused":
        request.getfixturevalue("server").fault = 401
        told = "Failed to get resume status"
    else:
        monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        told = "http://127.0.0.1:9 cannot be reached"
    folder = Folder(tmp_path)
    (said,) = (line for line in folder.run(4) if "finishing" not in line)
    assert said.startswith(f"warning: wandb: offline: {told}")
    assert said.endswith(f"mustdrop sync {folder.path}")
    assert [row["_step"] for row in wandb_log.read(*logs(folder.path)).history] == list(range(4))
    if trouble == "no key":
        assert server.runs == {}


def test_a_tracker_that_is_not_installed_is_bad_input(tmp_path, monkeypatch):
    monkeypatch.setattr("experiments.tracking.follow.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install 'mustdrop\[track\]'"):
        watched(node(), tmp_path)
    assert watched(node(mode="disabled"), tmp_path).process is None
    with watched(None, tmp_path) as nothing:
        nothing.start()
    assert list(tmp_path.iterdir()) == []


DUMMIES = {
    "crash": ("raise SystemExit(3)", "ended early"),
    "hang": ("import time; time.sleep(600)", "ended early"),
    "deaf": (
        "import subprocess, sys, time; "
        "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], "
        "start_new_session=True); time.sleep(600)",
        "ended early",
    ),
}


@pytest.mark.parametrize("kind", DUMMIES)
def test_no_tracker_outlives_its_time_nor_leaves_anything_behind(kind, tmp_path, monkeypatch):
    code, told = DUMMIES[kind]
    monkeypatch.setattr(watching, "GRACE", 0.2)
    monkeypatch.setattr(watching, "POLITE", 0.3)
    said = []
    tracker = WandB("study", finish_seconds=0.5)
    start = time.monotonic()
    with Watched(tracker, tmp_path, [sys.executable, "-c", code], say=said.append) as watch:
        watch.start()
        assert watch.process is not None
        if kind == "deaf":
            waited(lambda: psutil.Process(watch.process.pid).children())
        family = psutil.Process(watch.process.pid).children() if kind == "deaf" else []
    assert time.monotonic() - start < 10
    assert watch.process.poll() is not None
    assert gone(family)
    assert [text for text in said if text.startswith("warning")] == said[-1:]
    assert said[-1].startswith("warning: wandb: ") and told in said[-1]


def test_a_tracker_that_cannot_be_started_is_one_warning(tmp_path):
    said = []
    with Watched(WandB("study"), tmp_path, ["/no/such/program"], say=said.append) as watch:
        watch.start()
    assert len(said) == 1 and "could not be started" in said[0]


def test_whoever_stops_a_run_by_hand_waits_for_no_tracker(tmp_path):
    said, code = [], [sys.executable, "-c", "import time; time.sleep(600)"]
    start = time.monotonic()
    with (
        pytest.raises(KeyboardInterrupt),
        Watched(WandB("study"), tmp_path, code, say=said.append) as watch,
    ):
        watch.start()
        raise KeyboardInterrupt
    assert time.monotonic() - start < 2
    assert watch.process is not None
    watching.end(watch.process.pid)


@pytest.mark.parametrize(
    ("field", "told"),
    [
        ("mode=sideways", "mode must be online, offline, disabled or null, got 'sideways'"),
        ("finish_seconds=0.0", "finish_seconds must be above 0, got 0.0"),
        ("table_rows=-1", "table_rows must be a count, 0 or more, got -1"),
        ("project=''", "project must be a name"),
        ("+colour=red", "unexpected keyword argument 'colour'"),
    ],
)
def test_bad_input_is_told_before_anything_is_measured(field, told, tmp_path, monkeypatch, capsys):
    name, _, value = field.partition("=")
    field = f"+tracker.{name[1:]}={value}" if name[0] == "+" else f"tracker.{field}"
    monkeypatch.setattr(sys, "argv", ["run.py", f"output_root={tmp_path}", "tracker=wandb", field])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 2
    assert told in capsys.readouterr().err
    assert not list(tmp_path.rglob("samples.jsonl"))


@pytest.mark.slow
def test_a_burst_of_503_loses_and_doubles_nothing(tmp_path, server):
    folder, said = Folder(tmp_path), []
    with watched(node(), folder.path, say=said.append) as tracker:
        tracker.start()
        folder.answer(3)
        waited(lambda: server.runs and len(only(server.runs).rows) == 3)
        server.fault = 503
        folder.answer(20)
        waited(lambda: server.refused >= 2)
        server.fault = None
        folder.finish()
    assert only(server.runs).steps == list(range(20))
    assert not any("warning" in text for text in said)


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["hang", "death"])
def test_a_server_that_goes_away_costs_its_time_and_no_sample(fault, tmp_path, server):
    """The run ends within the limit, the disk is whole, and what is missing goes up later."""
    folder, said = Folder(tmp_path), []
    with watched(node(finish_seconds=4.0), folder.path, say=said.append) as tracker:
        tracker.start()
        folder.answer(3)
        waited(lambda: server.runs and len(only(server.runs).rows) == 3)
        assert tracker.process is not None
        family = psutil.Process(tracker.process.pid).children(recursive=True)
        if fault == "hang":
            server.fault = HANG
        else:
            server.die()
        folder.answer(9)
        folder.finish()
        start = time.monotonic()
    assert time.monotonic() - start < 4 + watching.GRACE + 5
    assert family and gone(family)
    assert tracker.process.poll() is not None
    # newer clients notice by themselves, older ones are stopped
    assert [text for text in said if text.startswith("warning: wandb: ")] == said[-1:]
    assert [sample["doc_id"] for sample in read_samples(folder.path)] == list(range(9))
    assert only(server.runs).steps == list(range(3))
    if fault == "hang":
        server.fault = None
        server.over.set()
    else:
        server.live()
    (folder.path / "config.yaml").write_text(yaml.safe_dump({**folder.config, "tracker": node()}))
    assert sync.main([str(tmp_path)]) == 0
    assert only(server.runs).steps == list(range(9))
    assert only(server.runs).summary["state"] == "done"


@pytest.mark.slow
def test_killed_in_the_middle_and_run_again_the_steps_are_gapless(tmp_path, server):
    """kill -9 on the measuring process of a real run, then the same command."""
    (tmp_path / "sitecustomize.py").write_text(SLOW)
    command = [
        sys.executable, "experiments/run.py", f"output_root={tmp_path}", "method=fastv",
        "budget=t128", "batch_size=4", "benchmark.limit=24", "tracker=wandb", "traces=1",
    ]  # fmt: skip
    slow = {**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}:{os.environ.get('PYTHONPATH', '')}"}
    process = subprocess.Popen(command, cwd=ROOT, env=slow, stderr=subprocess.DEVNULL)
    folder = run_folder(resolved(composed(*command[2:])))
    waited(lambda: len(read_samples(folder)) >= 8, 120)
    waited(lambda: server.runs and only(server.runs).rows)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    again = {**os.environ, "PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"}
    done = subprocess.run(command, cwd=ROOT, env=again, capture_output=True, text=True, check=True)
    stored = only(server.runs)
    assert stored.steps == list(range(24)), done.stderr
    assert stored.sessions >= 1
    samples = read_samples(folder)
    assert [row["doc_id"] for row in stored.rows.values()] == [s["doc_id"] for s in samples]
    assert (stored.summary["state"], stored.exit_code) == ("done", 0)
    assert stored.summary["samples"]["nrows"] == 24
    assert stored.summary["overlays"]["nrows"] == 1
    plain = run(composed(f"output_root={tmp_path / 'plain'}", *command[3:-2]))
    assert plain["metrics"] == json.loads((folder / "record.json").read_text())["metrics"]


SLOW = """
import json, time
dumps = json.dumps
def slowly(value, *args, **kwargs):
    if isinstance(value, dict) and "doc_id" in value and value["doc_id"] >= 8:
        time.sleep(600)
    return dumps(value, *args, **kwargs)
json.dumps = slowly
"""
