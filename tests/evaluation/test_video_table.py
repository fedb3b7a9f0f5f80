"""The paper's Table 2, from a checkpoint in the hub's layout over a judge to the table.

The model is tiny and random and the judge a stand-in, so accuracy and score mean nothing.
"""

import json
import sys

import pytest
from hub_checkpoints import save
from judge_server import JudgeServer
from video_files import write_video

from analysis.tables.__main__ import main as tables
from experiments import judge
from experiments.run import main as run_main
from experiments.sweeps import launch
from mustdrop.runs.folder import read_records

VIDEOS = ("videos", "videos/all", "mp4")  # of MSVD-QA, MSRVTT-QA, TGIF-QA
LAYERS = 6


@pytest.fixture
def data(tmp_path):
    """One folder in the layout of all three benchmarks, with two questions."""
    folder = tmp_path / "data"
    for name in VIDEOS:
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(2):
            write_video(folder / name / f"clip{number}.mp4")
    rows = [
        {"question_id": f"v{n}", "question": f"what is {n} ?", "video_name": f"clip{n}"}
        for n in range(2)
    ]
    (folder / "test_q.json").write_text(json.dumps(rows))
    (folder / "test_a.json").write_text(json.dumps([{"answer": "cat"}, {"answer": "dog"}]))
    return folder


@pytest.mark.slow
def test_table_2_runs_from_its_preset_over_a_judge_to_the_table(
    data, tmp_path, monkeypatch, capsys
):
    checkpoint = save("video_llava", tmp_path / "tiny", LAYERS)
    monkeypatch.setattr(launch, "failures", [])
    given = [
        f"model.pretrained={checkpoint}", f"model.layers={LAYERS}", "model.merging_blocks=3",
        "model.dtype=float32", "model.frames=4", f"benchmark.data={data}",
        "benchmark.task.max_new_tokens=3", "threads=1", "workers=0",
        f"output_root={tmp_path / 'outputs'}",
    ]  # fmt: skip
    monkeypatch.setattr(
        sys, "argv", ["run.py", "-m", "experiment=table2", *given, "hydra.sweeper.unready=skip"]
    )
    run_main()  # MustDrop has no threshold for this model
    assert len(launch.failures) == 3
    assert all("mustdrop" in str(failure) for failure in launch.failures)
    records = read_records(tmp_path / "outputs")
    assert len(records) == 3 * 3 and all(record["n"] == 2 for record in records)
    halved = [record for record in records if record["method"] != "vanilla"]
    for record in halved:
        cells = record["slots"]["cells"]
        assert record["counts"]["nominal"] == pytest.approx(0.5 * cells)
    with JudgeServer() as server:
        fields = {"model": "stand-in", "base_url": server.url, "wait": 0.01, "longest_wait": 0.05}
        chosen = [f"judge.{name}={value}" for name, value in fields.items()]
        judge.main([str(tmp_path / "outputs"), "judge=local", *chosen, "--budget", "18"])
    capsys.readouterr()
    assert tables(["table2", "--runs", str(tmp_path / "outputs")]) == 0
    shown = capsys.readouterr().out
    assert "not judged" not in shown and "judge accuracy" in shown and "judge score" in shown
    assert "mustdrop run -m experiment=table2 model=video_llava_7b method=mustdrop" in shown
