"""Verdicts reach W&B, also when the run was sent before it was judged."""

import pytest
import yaml
from judge_server import JudgeServer, truth
from tracked import METRIC, Folder, clean, node, only, served
from video_traces import filtered, last_frame, pictured, video_ledger

from experiments import judge as script
from experiments.tracking.closing import closing
from experiments.tracking.follow import fully_tracked
from experiments.tracking.judged import COLUMNS
from mustdrop.runs.folder import read_samples, read_status, trace_path
from mustdrop.runs.judgements import judgement_files
from mustdrop.runs.trace import Trace
from mustdrop.tracking.wandb_sink import WandB

NAME = "judge/stand-in, video_chatgpt/1"


@pytest.fixture(autouse=True)
def nobodys(monkeypatch, tmp_path):
    clean(monkeypatch, tmp_path)
    monkeypatch.chdir(tmp_path)


def judged(tmp_path, server, tracker=None, videos=()):
    """A finished run of six samples, five of them with a verdict; the first may show videos."""
    folder = Folder(tmp_path / "outputs")
    folder.config["tracker"] = tracker
    folder.config["image"] = {"name": "blank"}  # so that no picture is drawn, which takes seconds
    (folder.path / "config.yaml").write_text(yaml.safe_dump(folder.config))
    folder.answer(6)
    folder.finish()
    for doc, trace in enumerate(videos):
        path = trace_path(folder.path, doc)
        path.parent.mkdir(exist_ok=True)
        trace.save(path)
    server.fault = lambda prompt, call: "refusal" if "how many 5 " in prompt else None
    settings = ("judge=local", "judge.model=stand-in", f"judge.base_url={server.url}")
    assert script.main(["outputs", *settings, "--budget", "6"]) == 0
    return folder


@pytest.mark.slow
def test_a_judged_run_is_sent_with_its_verdicts(tmp_path, monkeypatch):
    with served(monkeypatch) as service, JudgeServer() as server:
        videos = [pictured(filtered()), Trace(last_frame())]
        folder = judged(tmp_path, server, node(table_rows=4, overlays=6), videos)
        stored = only(service.runs)
        assert stored.steps == list(range(6))
        expected = [truth(doc) for doc in range(5)]
        assert stored.summary[f"{NAME}/accuracy"] == sum(right for right, _ in expected) / 5
        assert stored.summary[f"{NAME}/score"] == sum(score for _, score in expected) / 5
        assert (stored.summary[f"{NAME}/judged"], stored.summary[f"{NAME}/unjudged"]) == (5, 1)
        assert stored.summary["judgements"]["nrows"] == 4
        assert stored.summary["film_strips"]["nrows"] == 2 and "overlays" not in stored.summary
        assert fully_tracked(folder.path)
        # a run that was sent before it was judged, or judged again, is sent again
        (path,) = judgement_files(folder.path)
        path.write_text(path.read_text().replace('"updated": "2', '"updated": "3'))
        assert not fully_tracked(folder.path)
        path.unlink()
        assert not fully_tracked(folder.path)


def test_the_report_of_a_judged_run_has_a_table_and_the_files(tmp_path):
    with JudgeServer() as server:
        folder = judged(tmp_path, server)
    status, tracker = read_status(folder.path), WandB("study", table_rows=10)
    report = closing(folder.path, folder.config, status, tracker)
    assert set(judgement_files(folder.path)) < set(report.files)
    columns, rows = report.tables["judgements"]
    assert columns == COLUMNS and len(rows) == 6
    for row, sample in zip(rows, read_samples(folder.path), strict=True):
        entry = dict(zip(columns, row, strict=True))
        assert entry["prediction"] == sample["answer"] and entry["answer"] == sample["target"]
        assert entry["metric"] == sample["scores"][METRIC]
        if sample["doc_id"] == 5:
            assert (entry["correct"], entry["score"], entry["unjudged"]) == (None, None, "refusal")
        else:
            assert (entry["correct"], entry["score"]) == truth(sample["doc_id"])


def test_film_strips_stand_in_the_report_and_a_torn_trace_prevents_no_other(tmp_path, capsys):
    """One per video, of the first samples with a trace; without pictures frames are plain."""
    two = video_ledger(range(24))
    two.videos = [(0, 1), (1, 2)]
    with JudgeServer() as server:
        videos = [pictured(filtered()), Trace(two), Trace(last_frame()), pictured(filtered())]
        folder = judged(tmp_path, server, videos=videos)
    trace_path(folder.path, 2).write_bytes(b"torn")
    status = read_status(folder.path)
    report = closing(folder.path, folder.config, status, WandB("study", overlays=3))
    columns, rows = report.tables["film_strips"]
    assert columns == ("doc_id", "question", "film_strip")
    assert [(row[0], row[2].name) for row in rows] == [
        (0, "0_video1.png"), (1, "1_video1.png"), (1, "1_video2.png"),
    ]  # fmt: skip
    assert all(row[2].read_bytes().startswith(b"\x89PNG") for row in rows)
    assert rows[0][1] == "how many 0 ?" and "overlays" not in report.tables
    assert "is not a trace" in capsys.readouterr().err
    none = closing(folder.path, folder.config, status, WandB("study", overlays=0))
    assert "film_strips" not in none.tables
