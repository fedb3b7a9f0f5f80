"""A tracker tells a run as the disk has it, and whatever happens to it, the run never notices.

Runs here are mostly written by hand, so that no model is loaded; the service is a stand-in on
loopback (tests/wandb_server.py) or wandb's own log read back (tests/wandb_log.py).
"""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean

import psutil
import pytest
import wandb_log
import yaml
from wandb_server import HANG, KEY, WandbServer

from experiments import sync
from experiments.compose import composed, resolved
from experiments.run import main, run
from experiments.track import watched
from mustdrop.harness import tracking
from mustdrop.harness.history import History
from mustdrop.harness.record import read_samples, run_folder
from mustdrop.harness.tracking import Watched
from mustdrop.harness.wandb_sink import WandB

ROOT = Path(__file__).parents[1]
METRIC = "exact_match"


def node(**more):
    return {
        "_target_": "mustdrop.harness.wandb_sink.WandB", "project": "study", "entity": None,
        "mode": None, "finish_seconds": 60.0, "table_rows": 0, "overlays": 0, **more,
    }  # fmt: skip


def line(doc):
    executed = 100.0 + doc
    return {
        "doc_id": doc, "task": "pocket_vqa", "type": "count", "question": f"how many {doc} ?",
        "answer": "two", "target": "two" if doc % 3 else "three",
        "scores": {METRIC: float(doc % 3 > 0)}, "vision_tokens": [576, 100], "new_tokens": 2,
        "resident_tokens": [90, 80], "encoder_macs": 10, "prefill_macs": 20 + doc,
        "vanilla_encoder_macs": 40, "vanilla_macs": 60, "scoring_macs": 1, "kv_bytes": 1000 + doc,
        "counts": {"nominal": None, "paper_average": 90.0, "executed_average": executed,
                   "resident": 85.0}, "seconds": 0.5,
    }  # fmt: skip


class Folder:
    """A run's folder, as the harness would write it."""

    def __init__(self, root, started="2026-01-02T03:04:05+00:00"):
        self.config = resolved(composed(f"output_root={root}", "threads=1"))
        self.config["experiment"] = "study"
        self.path, self.started = run_folder(self.config).resolve(), started
        self.path.mkdir(parents=True, exist_ok=True)
        self.n = len(read_samples(self.path))
        (self.path / "config.yaml").write_text(yaml.safe_dump(self.config))
        self.state("running")

    def state(self, state, **more):
        status = {"state": state, "n": self.n, "started": self.started, "fingerprint": "f" * 16}
        status |= {"host": "node7", "slurm": {"job_id": "41"}, "code": {"versions": {"torch": "2"}}}
        (self.path / "status.json").write_text(json.dumps({**status, **more}))

    def answer(self, n):
        with (self.path / "samples.jsonl").open("a") as lines:
            for doc in range(self.n, n):
                lines.write(json.dumps(line(doc)) + "\n")
        self.n = n

    def finish(self):
        samples = read_samples(self.path)
        record = {
            "metrics": {METRIC: fmean(sample["scores"][METRIC] for sample in samples)},
            "counts": {"nominal": None, "executed_average": 100.5}, "floor": None,
            "n": len(samples), "available": 10000, "vision_tokens": [576, 100],
            "resident_tokens": [90, 80], "flops_ratio": 0.3, "kv_bytes": 1.0, "seconds": 1.0,
        }  # fmt: skip
        (self.path / "record.json").write_text(json.dumps(record))
        self.state("done")

    def run(self, n, **more):
        """Its samples up to n, followed by a tracker."""
        said = []
        with watched(node(**more), self.path, say=said.append) as tracker:
            tracker.start()
            self.answer(n)
            self.finish()
        return said


@contextmanager
def environment(monkeypatch, tmp_path, **more):
    for name in [name for name in os.environ if name.startswith("WANDB")]:
        monkeypatch.delenv(name)
    # neither the key nor the settings of whoever runs the tests
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "wandb_config"))
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    for name, value in more.items():
        monkeypatch.setenv(name, str(value))
    yield


@pytest.fixture(autouse=True)
def clean(monkeypatch, tmp_path):
    with environment(monkeypatch, tmp_path):
        yield


@pytest.fixture
def server(monkeypatch, clean):
    with WandbServer() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        yield server
        assert server.unknown == []
        assert all(not stored.rewritten for stored in server.runs.values())


def only(stored):
    (value,) = stored.values()
    return value


def logs(folder, pattern="offline-run-*"):
    return [
        path for run in sorted((folder / "wandb").glob(pattern)) for path in run.glob("*.wandb")
    ]


def gone(family):
    """A process that nobody waits for any more stays a name until it is reaped."""
    _, left = psutil.wait_procs(family, timeout=5)
    return all(member.status() == psutil.STATUS_ZOMBIE for member in left)


def waited(what, seconds=60.0):
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


# what is told


def test_a_row_holds_the_samples_values_and_means_of_all_so_far():
    history, samples = History(METRIC), [line(doc) for doc in range(7)]
    samples[3]["scores"] = {"other": 1.0}
    for n, sample in enumerate(samples, 1):
        row, seen = history.row(sample), samples[:n]
        scored = [s["scores"][METRIC] for s in seen if METRIC in s["scores"]]
        assert row[f"mean/{METRIC}"] == pytest.approx(fmean(scored))
        assert row.get(f"sample/{METRIC}") == sample["scores"].get(METRIC)
        for name in ("executed_average", "resident", "paper_average"):
            assert row[f"sample/{name}"] == sample["counts"][name]
            assert row[f"mean/{name}"] == pytest.approx(fmean(s["counts"][name] for s in seen))
        spent = sum(s["encoder_macs"] + s["prefill_macs"] for s in seen)
        assert row["mean/flops_ratio"] == pytest.approx(spent / (100 * n))
        assert row["tokens_per_second"] == pytest.approx(2 / 0.5)
        assert (row["n"], row["doc_id"]) == (n, sample["doc_id"])
        assert not any("nominal" in name or "recall" in name for name in row)


def test_a_real_run_is_told_offline_and_reads_back(tmp_path, monkeypatch, capsys):
    """PocketLLaVA, real wandb, no network: everything of the run stands in one log."""
    arm = (f"output_root={tmp_path}", "method=mustdrop", "benchmark.limit=6", "traces=2")
    record = run(composed(*arm, "tracker=wandb", "tracker.mode=offline", "tracker.table_rows=4"))
    folder = run_folder(record["config"])
    told = wandb_log.read(*logs(folder))
    assert told.run == {
        "id": f"run-{record['key']}", "project": "mustdrop", "group": "run", "job_type": "eval",
        "name": "mustdrop t192 pocket_vqa", "tags": ["pocket", "pocket_vqa", "mustdrop", "t192"],
    }  # fmt: skip
    own = told.config.pop("run")
    assert (own["key"], own["fingerprint"]) == (record["key"], record["fingerprint"])
    assert own["versions"] == record["versions"]
    told.config.pop("_wandb", None)
    assert told.config == record["config"]
    assert [row["_step"] for row in told.history] == list(range(6))
    samples, last = read_samples(folder), told.history[-1]
    assert [row["doc_id"] for row in told.history] == [s["doc_id"] for s in samples]
    assert last["mean/exact_match"] == pytest.approx(record["metrics"]["exact_match"])
    for name in ("executed_average", "resident", "paper_average"):
        assert last[f"mean/{name}"] == pytest.approx(record["counts"][name])
        assert told.summary[f"final/{name}"] == record["counts"][name]
    assert last["mean/flops_ratio"] == pytest.approx(record["flops_ratio"])
    assert (told.summary["state"], told.exit_code) == ("done", 0)
    assert told.artifacts[f"record-run-{record['key']}"] == [
        "config.yaml", "record.json", "status.json",
    ]  # fmt: skip
    staged = table(folder, "samples")
    assert staged["columns"][:6] == [
        "doc_id", "image", "question", "answer", "prediction", "correct",
    ]  # fmt: skip
    assert len(staged["data"]) == 4
    for row, sample in zip(staged["data"], samples, strict=False):
        assert row[0] == sample["doc_id"]
        assert max(row[1]["width"], row[1]["height"]) <= 256
        assert row[2:5] == [sample["question"], sample["target"], sample["answer"]]
        assert row[5:9] == [
            sample["scores"]["exact_match"],
            *(sample["counts"][name] for name in ("executed_average", "resident", "paper_average")),
        ]
    assert [row[0] for row in table(folder, "overlays")["data"]] == [0, 1]
    assert len(list((folder / "overlays").glob("*.png"))) == 2
    layers = table(folder, "tokens_per_layer")["data"]
    assert [row[1] for row in layers] == pytest.approx(record["vision_tokens"])
    assert [row[2] for row in layers] == pytest.approx(record["resident_tokens"])
    # asked for, so no warning; and without a tracker the same result
    assert "warning" not in capsys.readouterr().err
    monkeypatch.setattr("experiments.run.watched", None)  # whoever would track falls over this
    again = run(composed(*arm, "tracker=wandb"))
    assert again["metrics"] == record["metrics"]


def table(folder, name):
    """A table as wandb staged it for uploading."""
    for path in (folder / "wandb" / "artifacts" / "staging").iterdir():
        data = path.read_bytes()
        if data.startswith(b'{"columns"') or data.startswith(b'{"_type"') or b'"columns"' in data:
            found = json.loads(data)
            heads = {"samples": "image", "overlays": "overlay", "tokens_per_layer": "entering"}
            if heads[name] in found["columns"]:
                return found
    raise AssertionError(f"no table {name}")


def test_online_a_run_is_told_whole_and_goes_on_when_it_is_made_longer(tmp_path, server):
    folder = Folder(tmp_path)
    said = folder.run(8)
    stored = only(server.runs)
    assert said == [f"wandb: {server.url}/team/study/runs/{stored.name}"]
    assert stored.name == f"study-{folder.path.name.rpartition('-')[2]}"
    told = stored.told
    assert (told["project"], told["groupName"], told["jobType"]) == ("study", "study", "eval")
    assert told["displayName"] == "mustdrop t192 pocket_vqa"
    assert told["tags"] == ["pocket", "pocket_vqa", "mustdrop", "t192"]
    own = stored.values.pop("run")
    assert (own["host"], own["slurm"], own["fingerprint"]) == ("node7", {"job_id": "41"}, "f" * 16)
    assert {k: v for k, v in stored.values.items() if k != "run"} == folder.config
    assert stored.steps == list(range(8))
    assert stored.rows[7][f"mean/{METRIC}"] == pytest.approx(5 / 8)
    assert (stored.summary["state"], stored.summary["final/n"], stored.exit_code) == ("done", 8, 0)
    assert stored.summary["tokens_per_layer"]["nrows"] == 2
    record = next(a for a in server.artifacts.values() if a["type"] == "record")
    assert record["committed"]
    assert sorted(record["files"]) == ["config.yaml", "record.json", "status.json"]
    kept = server.files(r"record-study.*/record\.json$")
    assert json.loads(only(kept)) == json.loads((folder.path / "record.json").read_text())

    longer = Folder(tmp_path)
    assert longer.n == 8
    longer.config["benchmark"]["limit"] = 11
    (longer.path / "config.yaml").write_text(yaml.safe_dump(longer.config))
    longer.run(11)
    assert only(server.runs).steps == list(range(11))
    assert stored.sessions == 1
    assert stored.summary["final/n"] == 11
    assert stored.values["benchmark"]["limit"] == 11
    assert sync.uploaded(folder.path)


# what goes wrong


@pytest.mark.parametrize("trouble", ["unreachable", "no key"])
def test_a_server_that_cannot_be_had_means_offline_and_one_warning(
    trouble, tmp_path, monkeypatch, request
):
    if trouble == "no key":
        server = request.getfixturevalue("server")
        monkeypatch.delenv("WANDB_API_KEY")
        told = "No API key configured"
    else:
        monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        told = "127.0.0.1:9 cannot be reached"
    folder = Folder(tmp_path)
    (said,) = folder.run(4)
    assert said.startswith(f"warning: wandb: offline: {told}")
    assert said.endswith(f"python experiments/sync.py {folder.path}")
    assert [row["_step"] for row in wandb_log.read(*logs(folder.path)).history] == list(range(4))
    if trouble == "no key":
        assert server.runs == {}


def test_offline_a_later_log_holds_the_whole_run_and_stands_alone(tmp_path, monkeypatch):
    for n in (3, 5):
        Folder(tmp_path).run(n, mode="offline")
    folder = Folder(tmp_path).path
    (log,) = logs(folder)
    assert [row["_step"] for row in wandb_log.read(log).history] == list(range(5))
    (old,) = logs(folder, "before/offline-run-*")
    assert [row["_step"] for row in wandb_log.read(old).history] == list(range(3))
    # wandb sync takes the one and does not see the other
    with WandbServer() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        assert not sync.uploaded(folder)
        done = subprocess.run(
            [sys.executable, "-m", "wandb", "sync", str(log.parent)],
            cwd=folder, capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert only(server.runs).steps == list(range(5)), done.stderr
        assert server.unknown == []
        assert sync.uploaded(folder)


def test_sync_uploads_what_the_service_lacks_and_nothing_twice(tmp_path, server, capsys):
    folder = Folder(tmp_path)
    folder.run(4, mode="offline")
    (folder.path / "config.yaml").write_text(
        yaml.safe_dump({**folder.config, "tracker": node(mode="offline")})
    )
    assert server.runs == {}
    assert sync.main([str(tmp_path), "--dry-run"]) == 0
    assert sync.main([str(tmp_path)]) == 0
    assert sync.main([str(tmp_path)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert [text.split(":")[0] for text in said] == [
        "to upload", "uploaded 4 samples", "up to date",
    ]  # fmt: skip
    stored = only(server.runs)
    assert (stored.steps, stored.summary["state"]) == (list(range(4)), "done")
    server.die()
    Folder(tmp_path).answer(6)
    (folder.path / "config.yaml").write_text(
        yaml.safe_dump({**folder.config, "tracker": node(mode="offline")})
    )
    assert sync.main([str(tmp_path)]) == 1
    assert "cannot be reached" in capsys.readouterr().err
    server.live()
    assert sync.main([str(tmp_path)]) == 0
    assert stored.steps == list(range(6))


def test_sync_without_a_run_is_bad_input(tmp_path):
    with pytest.raises(FileNotFoundError, match="no run under"):
        sync.main([str(tmp_path)])


def test_a_measurement_begun_anew_is_another_run(tmp_path, server):
    """Same experiment, same key, other samples: the first run's rows stay its own."""
    Folder(tmp_path / "a").run(4)
    anew = Folder(tmp_path / "b", started="2026-02-03T04:05:06+00:00")
    anew.run(3)
    first, second = server.runs.values()
    assert second.name == f"{first.name}-20260203040506"
    assert (first.steps, second.steps) == (list(range(4)), list(range(3)))


@pytest.mark.parametrize("state", ["floor", "failed", "stopped", "running"])
def test_a_run_without_a_record_ends_as_what_it_is(state, tmp_path, server):
    """Out of reach: finished and empty. Failed, preempted or killed: where it stands, no table."""
    folder = Folder(tmp_path)
    with watched(node(), folder.path) as tracker:
        tracker.start()
        if state == "floor":
            record = {"metrics": {}, "counts": None, "floor": 73.9, "n": 0, "available": None}
            (folder.path / "record.json").write_text(json.dumps(record))
        else:
            folder.answer(2)
            with (folder.path / "samples.jsonl").open("a") as torn:
                torn.write('{"doc_id": 2, "answer": "hal')
        folder.state(state, **({"error": "KeyError: what"} if state == "failed" else {}))
    stored = only(server.runs)
    assert stored.steps == ([] if state == "floor" else [0, 1])
    assert (stored.summary["state"], stored.exit_code) == (state, int(state != "floor"))
    assert stored.summary.get("final/floor") == (73.9 if state == "floor" else None)
    assert stored.summary.get("error") == ("KeyError: what" if state == "failed" else None)
    assert stored.preempting == (state == "stopped")
    assert len(server.artifacts) == int(state == "floor")


def test_a_tracker_that_is_not_installed_is_bad_input(tmp_path, monkeypatch):
    monkeypatch.setattr("experiments.track.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install 'mustdrop\[track\]'"):
        watched(node(), tmp_path)
    assert watched(node(mode="disabled"), tmp_path).process is None
    with watched(None, tmp_path) as nothing:
        nothing.start()
    assert list(tmp_path.iterdir()) == []


def test_trackio_holds_a_row_a_sample_however_often_it_is_told(tmp_path, monkeypatch):
    pytest.importorskip("trackio")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    made = {"_target_": "mustdrop.harness.trackio_sink.Trackio", "project": "study",
            "finish_seconds": 60.0, "table_rows": 2, "overlays": 0}  # fmt: skip
    for n in (3, 5):
        folder, said = Folder(tmp_path), []
        with watched(made, folder.path, say=said.append) as tracker:
            tracker.start()
            folder.answer(n)
            folder.finish()
        assert said[-1] == "trackio: local, trackio show --project study"
    read = "import json, trackio; from trackio.sqlite_storage import SQLiteStorage as S; " + (
        "(r,) = trackio.Api().runs('study'); print(json.dumps(S.get_logs('study', r.name, r.id)))"
    )
    told = subprocess.run([sys.executable, "-c", read], capture_output=True, text=True, check=True)
    rows = json.loads(told.stdout.splitlines()[-1])
    assert [row["step"] for row in rows] == list(range(5))
    assert rows[-1]["final/n"] == 5
    assert len(rows[-1]["samples"]["_value"]) == 2
    assert "samples" not in rows[2]


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
    monkeypatch.setattr(tracking, "GRACE", 0.2)
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
    tracking.end(watch.process.pid)


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
def test_a_run_is_told_while_it_runs(tmp_path, server):
    folder = Folder(tmp_path)
    with watched(node(), folder.path) as tracker:
        tracker.start()
        folder.answer(5)
        # wandb posts rows every 15 s, whatever it is set to
        waited(lambda: server.runs and len(only(server.runs).rows) == 5)
        assert tracking.read(folder.path)["where"].startswith(server.url)
        assert only(server.runs).exit_code is None
        folder.finish()
    assert only(server.runs).exit_code == 0


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
    assert time.monotonic() - start < 4 + tracking.GRACE + 5
    assert family and gone(family)
    assert tracker.process.poll() is not None
    assert "not through 4 s after the run's end" in said[-1]
    assert [sample["doc_id"] for sample in read_samples(folder.path)] == list(range(9))
    assert only(server.runs).steps == list(range(3))
    if fault == "hang":
        server.fault = None
        server.well.set()
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
