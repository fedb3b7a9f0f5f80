"""The front goes on where it was killed, shares its work, and shows what the records say."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState
from results import draws, write

from analysis.figures.pareto import draw, read, table
from experiments import pareto as script
from experiments.study import SharedStudy
from mustdrop.presets.compose import composed, resolved
from mustdrop.runs.folder import read_records, read_samples

ROOT = Path(__file__).parents[2]
SPACE = {"prefill.gamma": FloatDistribution(1e-3, 1e-2, log=True)}
TINY = (
    "benchmark.limit=4", "batch_size=4", "pareto.controls=[random]", "pareto.budgets=[t128]",
    "threads=1",
)  # fmt: skip


def study(folder, **asked):
    return SharedStudy(folder, SPACE, asked, seed=0)


def state(ours, number):
    return ours.study.trials[number].state


# a worker that asks once, and then is killed or waits
WORKER = """
import os, signal, sys, time
from optuna.distributions import FloatDistribution
from pathlib import Path
from experiments.study import SharedStudy
space = {"prefill.gamma": FloatDistribution(1e-3, 1e-2, log=True)}
ours = SharedStudy(Path(sys.argv[1]), space, {}, seed=0)
with ours.at_work():
    ours.ask(9)
    print("asked", flush=True)
    time.sleep(60)
"""


def worker(folder):
    process = subprocess.Popen(
        [sys.executable, "-c", WORKER, str(folder)], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert process.stdout is not None and process.stdout.readline() == "asked\n"
    return process


def test_a_killed_workers_trial_is_failed_and_asked_again(tmp_path):
    process = worker(tmp_path / "s")
    ours = study(tmp_path / "s")
    with ours.at_work():
        # while it lives, its trial is its own
        mine = ours.ask(9)
        assert state(ours, 0) == TrialState.RUNNING and mine.number == 1
        ours.tell(mine, 0.5, 100.0)
        process.send_signal(signal.SIGKILL)
        process.wait()
        again = ours.ask(9)
        assert state(ours, 0) == TrialState.FAIL
        assert again.params == ours.study.trials[0].params != mine.params
        ours.tell(again, 0.6, 90.0)
        assert ours.count(TrialState.COMPLETE) == 2
        assert ours.ask(2) is None


def test_a_study_begun_with_other_settings_is_refused(tmp_path):
    study(tmp_path / "s", limit=4, code="a")
    study(tmp_path / "s", limit=4, code="a")
    with pytest.raises(ValueError, match=r"limit was 4, is 5 now.*pareto.name="):
        study(tmp_path / "s", limit=5, code="a")


def test_draws_differ_between_starts_and_repeat_within_a_first_one(tmp_path):
    first = []
    for name in ("a", "b"):
        ours = study(tmp_path / name)
        with ours.at_work():
            first.append(ours.ask(9).params)
    assert first[0] == first[1]
    ours = study(tmp_path / "a")
    with ours.at_work():
        assert ours.ask(9).params == first[0]  # the first one's again: it was never told
        assert ours.ask(9).params != first[0]


def test_the_front_is_what_nothing_beats(tmp_path):
    settings = [(200.0, 0.9), (100.0, 0.5), (150.0, 0.5), (120.0, 0.7), (90.0, 0.5), (210.0, 0.8)]
    for number, (executed, share) in enumerate(settings):
        scores = (1.0,) * round(40 * share) + (0.0,) * round(40 - 40 * share)
        own = {"prefill": {"gamma": 1e-3 * number}}
        write(tmp_path, "mustdrop", "none", executed, scores, key=f"k{number}", config=own)
    write(tmp_path, "random", executed=192.0, scores=draws(1))
    found = read(tmp_path, "vqa", "mustdrop")
    assert len(found.trials) == 6 and [cell["method"] for cell in found.controls] == ["random"]
    points = [(cell.executed, cell.samples["score"].mean()) for cell in found.front]
    assert points == [(90.0, 0.5), (120.0, 0.7), (200.0, 0.9)]
    everyone = [(cell.executed, cell.samples["score"].mean()) for cell in found.trials]
    for executed, accuracy in everyone:
        beaten = any(
            e <= executed and a >= accuracy for e, a in everyone if (e, a) != (executed, accuracy)
        )
        assert beaten != ((executed, accuracy) in points)
    assert table(found, ["prefill.gamma"]).row_count == 3
    svg, again = (draw(found, tmp_path / name).read_text() for name in ("a.svg", "b.svg"))
    assert svg == again and "other trials (3)" in svg and "random" in svg
    with pytest.raises(ValueError, match="no run of fastv"):
        read(tmp_path, "vqa", "fastv")


def test_a_trial_is_a_run_on_calibration_questions_and_nothing_else():
    cfg = composed("pareto.name=x", name="pareto")
    values = {"prefill.gamma": 0.00123456, "prefill.alpha": 0.0123456}
    tried, tested = (resolved(script.setting(cfg, values, validate)) for validate in (False, True))
    assert "pareto" not in tried and tried["budget"] is None
    assert tried["prefill"]["gamma"] == 0.001235 and tried["dropper"]["prefill"]["alpha"] == 0.01235
    assert tried["benchmark"]["task"]["split"] == "crowded_calibration"
    assert tested["benchmark"]["task"]["split"] == "crowded_test"
    assert (
        tried["benchmark"]["name"] == tried["benchmark"]["task"]["name"] == "pocket_vqa_calibration"
    )
    assert (tried["experiment"], tried["output_root"]) == ("x", "outputs/pareto")


def test_bad_input_is_told_before_anything_runs(tmp_path):
    for asked, expected in (
        (["method=fastv"], r"vision.tau is no field of a stage in use"),
        (["pareto.workers=0"], "pareto.workers must be a count"),
        (["pareto.trials=0"], "pareto.trials must be a count"),
        (["pareto.space.prefill.gamma=3"], "prefill.gamma needs low, high and log"),
        (["pareto.space=null"], "must name a field"),
    ):
        with pytest.raises(ValueError, match=expected):
            script.main([f"output_root={tmp_path}", *asked])
        assert not list(tmp_path.rglob("samples.jsonl"))


SLOW = """
import json, time
dumps = json.dumps
def slowly(value, *args, **kwargs):
    if isinstance(value, dict) and value.get("doc_id", 0) >= 2:
        time.sleep(600)
    return dumps(value, *args, **kwargs)
json.dumps = slowly
"""


@pytest.mark.slow
def test_a_killed_front_goes_on_and_shows_what_it_found(tmp_path, capsys):
    """kill -9 in the middle of a trial; the same command finishes that trial's own run."""
    asked = [f"output_root={tmp_path}", *TINY]
    # held up at its third sample, so that the kill falls in the middle however fast the machine
    (tmp_path / "sitecustomize.py").write_text(SLOW)
    env = {**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"}
    process = subprocess.Popen(
        [sys.executable, "experiments/pareto.py", *asked, "batch_size=2"], cwd=ROOT, env=env,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    root = tmp_path / "pareto" / "mustdrop"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        left = [
            path.parent
            for path in root.rglob("samples.jsonl")
            if len(read_samples(path.parent)) > 1
        ]
        if left:
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    begun = read_samples(left[0])
    assert len(begun) == 2

    script.main([*asked, "batch_size=2", "pareto.trials=2", "pareto.validate=true"])
    told = capsys.readouterr().out
    assert read_samples(left[0])[:2] == begun and len(read_samples(left[0])) == 4
    records = read_records(root)
    trials = [
        r
        for r in records
        if r["benchmark"] == "pocket_vqa_calibration" and r["method"] == "mustdrop"
    ]
    assert len(trials) == 2 and {r["method"] for r in records} == {"mustdrop", "random"}
    found = read(root, "pocket_vqa_calibration", "mustdrop")
    assert all(cell is not None for cell in found.again)
    assert "Pareto front of 2 runs" in told and "held out" in told
    assert (root / "pareto.png").stat().st_size > 10_000 and (root / "pareto.svg").exists()
    for cell in found.front:
        assert cell["key"] in told
    # once more: nothing is left to do
    before = {path: path.stat().st_mtime_ns for path in root.rglob("samples.jsonl")}
    script.main([*asked, "batch_size=2", "pareto.trials=2"])
    assert before == {path: path.stat().st_mtime_ns for path in root.rglob("samples.jsonl")}


@pytest.mark.slow
def test_two_workers_share_a_study(tmp_path):
    script.main([f"output_root={tmp_path}", *TINY, "pareto.trials=6", "pareto.workers=2"])
    root = tmp_path / "pareto" / "mustdrop"
    cfg = composed(f"output_root={tmp_path}", *TINY, name="pareto")
    ours = script.shared(cfg)
    assert ours.count(TrialState.COMPLETE) == 6
    workers = {trial.user_attrs["worker"] for trial in ours.study.trials}
    assert len(workers) == 2
    assert len({tuple(trial.params.values()) for trial in ours.study.trials}) == 6
    assert "trial " in (root / "worker-1.log").read_text()
    assert not list((root / "workers").iterdir())
