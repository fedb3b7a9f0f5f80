"""A tracker tells a run as the disk has it: every sample once, in order, and what came of it.

The service is a stand-in on loopback (tests/helpers/wandb_server.py) or wandb's own log read back
(tests/helpers/wandb_log.py). What goes wrong: tests/tracking/test_tracking_faults.py.
"""

import fcntl
import json
import subprocess
import sys
from statistics import fmean

import pytest
import wandb_log
import yaml
from tracked import METRIC, Folder, clean, line, logs, node, only, served, waited
from wandb_server import KEY, WandbServer

from experiments import sync
from experiments.run import run
from experiments.tracking.follow import catch_up, watched
from mustdrop.presets.compose import composed
from mustdrop.runs.folder import read_samples, run_folder
from mustdrop.tracking import service as tracking
from mustdrop.tracking.history import History


@pytest.fixture(autouse=True)
def nobodys(monkeypatch, tmp_path):
    clean(monkeypatch, tmp_path)


@pytest.fixture
def server(monkeypatch, nobodys):
    with served(monkeypatch) as server:
        yield server


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


@pytest.mark.slow
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


def test_a_run_that_was_done_before_is_told_if_its_tracker_lacks_it(tmp_path, monkeypatch):
    folder = Folder(tmp_path)
    folder.answer(3)
    folder.finish()
    catch_up(None, folder.path)
    assert not (folder.path / "wandb").exists()
    catch_up(node(mode="offline"), folder.path)
    assert [row["_step"] for row in wandb_log.read(*logs(folder.path)).history] == [0, 1, 2]
    monkeypatch.setattr(
        "experiments.tracking.follow.watched", None
    )  # whoever would tell falls over this
    catch_up(node(mode="offline"), folder.path)


@pytest.mark.slow
def test_offline_a_later_log_holds_the_whole_run_and_stands_alone(tmp_path, monkeypatch):
    for n in (3, 5):
        run_there = Folder(tmp_path)
        run_there.run(n, mode="offline")
    folder = run_there.path
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


@pytest.mark.slow
def test_a_measurement_begun_anew_is_another_run(tmp_path, server):
    """Same experiment, same key, other samples: the first run's rows stay its own."""
    Folder(tmp_path / "a").run(4)
    anew = Folder(tmp_path / "b", started="2026-02-03T04:05:06+00:00")
    anew.run(3)
    first, second = server.runs.values()
    assert second.name == f"{first.name}-20260203040506"
    assert (first.steps, second.steps) == (list(range(4)), list(range(3)))


@pytest.mark.parametrize(
    "state",
    ["floor", "stopped", *(pytest.param(s, marks=pytest.mark.slow) for s in ("failed", "running"))],
)
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


def tracked(folder, **more):
    """Its config names a tracker, as that of a run started with one does."""
    config = {**folder.config, "tracker": node(**more)}
    (folder.path / "config.yaml").write_text(yaml.safe_dump(config))


@pytest.mark.slow
def test_sync_uploads_what_the_service_lacks_and_nothing_twice(tmp_path, server, capsys):
    folder = Folder(tmp_path)
    folder.run(4, mode="offline")
    assert sync.main([str(tmp_path)]) == 0
    tracked(folder, mode="offline")
    assert sync.main([str(tmp_path), "--dry-run"]) == 0
    assert server.runs == {}
    assert sync.main([str(tmp_path)]) == 0
    assert sync.main([str(tmp_path)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert [text.split(":")[0] for text in said] == [
        "no tracker", "to upload", "uploaded 4 samples", "up to date",
    ]  # fmt: skip
    stored = only(server.runs)
    assert (stored.steps, stored.summary["state"]) == (list(range(4)), "done")


@pytest.mark.slow
def test_sync_fails_where_the_service_is_not_reached_and_then_goes_on(tmp_path, server, capsys):
    Folder(tmp_path).run(4)
    longer = Folder(tmp_path)
    longer.answer(6)
    tracked(longer)
    server.die()
    assert sync.main([str(tmp_path)]) == 1
    assert "cannot be reached" in capsys.readouterr().err
    server.live()
    assert sync.main([str(tmp_path)]) == 0
    assert only(server.runs).steps == list(range(6))


def test_sync_leaves_a_run_alone_that_is_being_written(tmp_path, capsys):
    folder = Folder(tmp_path)
    folder.answer(2)
    tracked(folder)
    with (folder.path / "run.log").open("a") as log:
        fcntl.flock(log, fcntl.LOCK_EX)
        assert sync.main([str(tmp_path)]) == 0
    assert "still running" in capsys.readouterr().out
    assert not (folder.path / "wandb").exists()


def test_sync_without_a_run_is_bad_input(tmp_path):
    with pytest.raises(FileNotFoundError, match="no run under"):
        sync.main([str(tmp_path)])


def test_trackio_holds_a_row_a_sample_however_often_it_is_told(tmp_path, monkeypatch):
    pytest.importorskip("trackio")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    made = {"_target_": "mustdrop.tracking.trackio_sink.Trackio", "project": "study",
            "finish_seconds": 60.0, "table_rows": 2, "overlays": 0}  # fmt: skip
    for n in (3, 5):
        folder, said = Folder(tmp_path), []
        with watched(made, folder.path, say=said.append) as tracker:
            tracker.start()
            folder.answer(n)
            folder.finish()
        assert said[-1] == "trackio: local, trackio show --project study"
    read = (
        "import json, trackio; from trackio.sqlite_storage import SQLiteStorage; "
        "(run,) = trackio.Api().runs('study'); "
        "print(json.dumps(SQLiteStorage.get_logs('study', run.name, run_id=run.id)))"
    )
    told = subprocess.run([sys.executable, "-c", read], capture_output=True, text=True, check=True)
    rows = json.loads(told.stdout.splitlines()[-1])
    assert [row["step"] for row in rows] == list(range(5))
    assert rows[-1]["final/n"] == 5
    assert len(rows[-1]["samples"]["_value"]) == 2
    assert "samples" not in rows[2]
