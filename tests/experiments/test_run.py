"""A run goes on where it was killed, is done when it is, mixes no codes, tells what is wrong."""

import json
import os
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from statistics import fmean

import pytest

from analysis.records.cells import load
from experiments import run as script
from experiments.run import main, run
from experiments.sweeps import launch
from mustdrop.evaluation.lmms import DroppedVLM
from mustdrop.ledger import TokenLedger
from mustdrop.presets.compose import composed, resolved
from mustdrop.provenance.fingerprint import run_fingerprint
from mustdrop.runs.fingerprint import Fingerprint
from mustdrop.runs.folder import read_records, read_samples, run_folder, trace_path
from mustdrop.runs.writer import RunWriter

ROOT = Path(__file__).parents[2]
ARM = ("method=fastv", "budget=t128", "batch_size=4")


def config(root, *overrides):
    return composed(f"output_root={root}", *ARM, *overrides)


def folder_of(cfg):
    return run_folder(resolved(cfg))


def answers(folder):
    return [(line["doc_id"], line["answer"]) for line in read_samples(folder)]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of 24 samples, never interrupted, with two ledgers kept."""
    cfg = config(tmp_path_factory.mktemp("outputs"), "benchmark.limit=24", "traces=[2,5]")
    return cfg, run(cfg)


def test_a_record_sums_up_its_samples(finished):
    cfg, record = finished
    folder = folder_of(cfg)
    samples = read_samples(folder)
    assert [line["doc_id"] for line in samples] == list(range(24))
    assert record["n"] == record["limit"] == 24
    assert record["metrics"]["exact_match"] == fmean(
        line["scores"]["exact_match"] for line in samples
    )
    for name in ("paper_average", "executed_average", "resident", "nominal"):
        assert record["counts"][name] == pytest.approx(
            fmean(line["counts"][name] for line in samples)
        )
    assert record["counts"]["executed_average"] == (576 + 11 * 87) / 12
    assert record["counts"]["nominal"] == 128
    assert 0 < record["flops_ratio"] < 1
    assert record["kv_bytes"] < record["vanilla_kv_bytes"]
    assert record["config"] == resolved(cfg)
    assert (record["method"], record["budget"], record["floor"]) == ("fastv", "t128", None)
    assert read_records(Path(cfg.output_root)) == [{**record, "folder": str(folder)}]
    assert json.loads((folder / "status.json").read_text())["state"] == "done"


def test_ledgers_are_kept_of_the_samples_that_were_named(finished):
    cfg, _ = finished
    folder = folder_of(cfg)
    samples = read_samples(folder)
    assert sorted(path.name for path in (folder / "traces").iterdir()) == ["2.npz", "5.npz"]
    for doc in (2, 5):
        ledger = TokenLedger.load(trace_path(folder, doc))
        assert ledger.vision_per_layer() == samples[doc]["vision_tokens"]


def test_a_finished_run_is_done_and_touches_nothing(finished, capsys, monkeypatch):
    cfg, record = finished
    before = {path: path.stat().st_mtime_ns for path in folder_of(cfg).iterdir()}
    monkeypatch.setattr(script, "built", None)  # whoever would measure falls over this
    capsys.readouterr()
    assert run(cfg) == record
    assert "done before: pocket x pocket_vqa x fastv at t128" in capsys.readouterr().out
    fewer = config(cfg.output_root, "benchmark.limit=10")
    assert run(fewer) == record
    assert {path: path.stat().st_mtime_ns for path in folder_of(cfg).iterdir()} == before


def test_a_larger_limit_goes_on_and_a_new_trace_adds_no_sample(tmp_path, monkeypatch):
    run(config(tmp_path, "benchmark.limit=3"))
    ask, asked = DroppedVLM._ask, []

    def spied(adapter, prepared):
        asked.extend(request.doc_id for request in prepared.requests)
        return ask(adapter, prepared)

    monkeypatch.setattr(DroppedVLM, "_ask", spied)
    record = run(config(tmp_path, "benchmark.limit=6", "traces=1"))
    folder = folder_of(config(tmp_path))
    assert asked == [0, 3, 4, 5]
    assert record["n"] == 6
    assert [doc for doc, _ in answers(folder)] == list(range(6))
    assert trace_path(folder, 0).exists()


def test_a_killed_run_goes_on_at_its_next_sample(finished, tmp_path):
    """kill -9 in the middle, a torn line as from a full disk, then the same command again."""
    cfg = config(tmp_path, "benchmark.limit=24")
    folder = folder_of(cfg)
    command = [sys.executable, "experiments/run.py", f"output_root={tmp_path}", *ARM]
    # held up at its ninth sample, so that the kill falls in the middle however fast the machine
    slow = {**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}:{os.environ.get('PYTHONPATH', '')}"}
    (tmp_path / "sitecustomize.py").write_text(SLOW)
    process = subprocess.Popen(
        [*command, "benchmark.limit=24"], cwd=ROOT, env=slow, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while len(read_samples(folder)) < 8 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    left = answers(folder)
    assert 8 <= len(left) < 24
    assert json.loads((folder / "status.json").read_text())["state"] == "running"
    assert not (folder / "record.json").exists()
    with (folder / "samples.jsonl").open("a") as torn:
        torn.write('{"doc_id": 9, "answer": "hal')

    record = run(cfg)
    whole = answers(folder_of(finished[0]))
    assert answers(folder)[: len(left)] == left
    assert answers(folder) == whole
    assert record["n"] == 24
    assert record["metrics"] == finished[1]["metrics"]
    assert "cut a torn line" in (folder / "run.log").read_text()


SLOW = """
import threading, time
import json
dumps = json.dumps
def slowly(value, *args, **kwargs):
    if isinstance(value, dict) and "doc_id" in value and value["doc_id"] >= 8:
        time.sleep(600)
    return dumps(value, *args, **kwargs)
json.dumps = slowly
"""


def test_samples_of_other_code_are_not_mixed(tmp_path, monkeypatch):
    cfg = config(tmp_path, "benchmark.limit=2")
    folder = folder_of(cfg)
    run(cfg)
    old = answers(folder)
    now = run_fingerprint(resolved(cfg))
    files = {**now.files, "mustdrop/prefill/fastv.py": "0" * 12}
    files.pop("mustdrop/cost.py")
    later = Fingerprint(files, {**now.versions, "torch": "9.9"})
    monkeypatch.setattr(script, "run_fingerprint", lambda *args, **more: later)
    run(cfg)  # done is done
    with pytest.raises(ValueError, match="2 samples of other code") as refused:
        run(config(tmp_path, "benchmark.limit=4"))
    for change in (
        "mustdrop/prefill/fastv.py changed",
        "mustdrop/cost.py gone",
        "-> 9.9",
        "force=true",
    ):
        assert change in str(refused.value)
    assert answers(folder) == old

    record = run(config(tmp_path, "benchmark.limit=4", "force=true"))
    assert record["n"] == 4
    assert record["fingerprint"] == later.id != now.id
    assert [json.loads(line)["doc_id"] for line in (folder / "samples.jsonl.1").open()] == [0, 1]
    assert len(read_records(tmp_path)) == 1


def test_two_processes_do_not_write_to_one_run(tmp_path):
    mark = Fingerprint({}, {})
    with (
        RunWriter(tmp_path, mark, "") as ours,
        pytest.raises(ValueError, match=r"another process \(process \d+ on .*\) is writing"),
    ):
        RunWriter(tmp_path, mark, "")
    assert ours.samples == {}
    with RunWriter(tmp_path, mark, ""):
        pass


def test_a_failure_is_told_in_status_and_log(tmp_path):
    with pytest.raises(KeyError), RunWriter(tmp_path, Fingerprint({}, {}), "") as ours:
        ours.add({"doc_id": 0})
        raise KeyError("what happened")
    status = json.loads((tmp_path / "status.json").read_text())
    assert (status["state"], status["n"]) == ("failed", 1)
    assert "what happened" in status["error"]
    assert "Traceback" in (tmp_path / "run.log").read_text()
    assert read_samples(tmp_path) == [{"doc_id": 0}]


def test_a_budget_out_of_reach_is_a_finished_cell_without_samples(tmp_path, capsys):
    cfg = config(tmp_path, "budget=t64", "prefill.layer=2")
    record = run(cfg)
    assert (record["floor"], record["n"], record["counts"]) == (144, 0, None)
    (result,) = load(tmp_path)  # the analysis shows it as a row of its own
    assert result["floor"] == 144 and result.samples.empty
    assert run(cfg) == record
    assert capsys.readouterr().out.count("floor 144") == 2
    assert read_samples(folder_of(cfg)) == []


def command(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["run.py", *arguments])
    main()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (
            ["method=fastv", "prefill.layer=13"],
            "prefill.layer: layer must be in [-1, 10], the layers after which this model can",
        ),
        (["method=fastv", "prefill.keep=3", "prefill.layer=11"], "acts after layer 11"),
        (
            ["method=fastv", "prefill.keep=-1"],
            "keep must be a count of tokens, 0 or more, or a Budget, got -1",
        ),
        (["method=fastv", "prefill.keep=9"], "prefill.keep=9, prefill.layer=0 make it 56.2: do"),
        (["method=fastv", "budget=none"], "prefill.keep: there is no budget to compute it from"),
        (["budget=none"], "prefill.gamma has no value"),
        (
            ["method=fastv", "model.pretrained=/no/such/folder"],
            "there is no folder /no/such/folder",
        ),
        (["method=fastv", "model.layers=8"], "model.layers is 8, but packaged has 12"),
        (["method=fastv", "+prefill.ratio=0.5"], "no field prefill.ratio; prefill has keep, layer"),
        (["prefill.gama=0.5"], "no field prefill.gama; did you mean prefill.gamma?"),
        (["method=mustdorp"], "no method 'mustdorp'; did you mean mustdrop?"),
        (["-m", "method=fastv,mustdorp"], "no method 'mustdorp'; did you mean mustdrop?"),
        (["budget=96"], "prefill.gamma has no value and prefill.alpha has no value for pocket x "),
        (["budget=22.2%"], "for pocket x pocket_vqa at s22.2: calibrate first (mustdrop calibrate"),
        (
            ["method=fastv", "budget=many"],
            "budget must be a count of tokens (128 or t128), a share",
        ),
        (["method=fastv", "budget=true"], "or none, got 'True'"),
        (["method=fastv", "budget=nan"], "budget must be a count of tokens (128 or t128), a share"),
        (["-m", "method=fastv", "budget=t64,t12x"], "or none, got 't12x'"),
        (["method=fastv", "budget=101%"], "budget: share must be in [0, 1], got 1.01"),
        (["method=fastv", "budget.tokens=9"], "a budget is a plain value, as in budget=128 or "),
        (["method=fastv", "benchmark.limit=0"], "benchmark.limit must be a count of 1 or more"),
        (["method=fastv", "batch_size=none"], "batch_size must be a count of 1 or more"),
        (["method=fastv", "traces=-1"], "traces must be a number of samples"),
        (["benchmark.task.split=hard", "method=fastv"], "split must be one of crowded_test"),
        (
            ["method=oracle", "image=wrong"],
            "KnownPatches needs target_patches of every image, which are known only for a",
        ),
        (["method=oracle", "vision.mark=bus"], "KnownPatches needs bus of every document"),
        (
            ["image=blank", "image.colour=[1,2,300]"],
            "image: colour must be three numbers from 0 to",
        ),
        (["image=resized", "image.ratio=0.0"], "image: ratio must be a share of pixels in (0, 1]"),
        (["controls.schedule_random=[3,3]"], "schedule_random must be a list of different seeds"),
        (["device=nowhere"], "device=nowhere cannot be used"),
        (["benchmark.metric=bleu"], "benchmark.metric must be one of exact_match"),
        (["budget=-4"], "budget must be a count of tokens (128 or t128), a share of those that"),
        pytest.param(
            ["method=fastv", "model.attention=flash_attention_2"],
            "model.attention=flash_attention_2: ",
            marks=pytest.mark.skipif(find_spec("flash_attn") is not None, reason="it is installed"),
        ),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(arguments, told, tmp_path, monkeypatch, capsys):
    with pytest.raises(SystemExit) as left:
        command(monkeypatch, f"output_root={tmp_path}", *arguments)
    assert left.value.code == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ")
    assert told in error
    assert not list(tmp_path.rglob("record.json"))


UNCHECKED = """
import json, sys
from experiments.run import main
root, cases = sys.argv[1], json.loads(sys.argv[2])
for arguments in cases:
    sys.argv = ["run.py", "output_root=" + root, *arguments]
    try:
        main()
    except SystemExit as left:
        print(left.code, file=sys.stderr)
"""
UNCHECKED_CASES = {
    ("method=vanilla", "+prefill.keep=3"): "PrefillStrategy or None, got DictConfig",
    ("method=vanilla", "dropper.positions=sideways"): "positions must be one of original, compact",
    ("vision.score=avg",): "vision: LocalMerge.score must be one of mean, sum, got 'avg'",
    ("method=fastv", "budget=none", "prefill.keep=0.5"): (
        "prefill: FastV.keep must be a count of tokens, 0 or more, or a Budget, got 0.5"
    ),
    ("key_tokens.heads=median",): "heads must be one of mean, max, got 'median'",
    ("prefill.layers=3",): "layers must be a list of one layer or more, like [2, 6], got 3",
    ("method=pyramiddrop", "prefill.layers=3"): "layers must be a list of one layer or more",
    (
        "method=sparsevlm_fixed",
        "prefill.layers=[1.5]",
    ): "prefill.layers: SparseVLM.layers must be a list of one layer or more",
    (
        "method=fastv",
        "prefill.layer=1.5",
    ): "prefill.layer: FastV.layer must be a whole number, got 1.5",
    (
        "method=sparsevlm_fixed",
        "prefill.recycle=none",
    ): "prefill.recycle: SparseVLM.recycle must be a share in [0, 1], got 'none'",
    (
        "method=sparsevlm_fixed",
        "prefill.per_cluster=2.5",
    ): "prefill.per_cluster: SparseVLM.per_cluster must be a count, 1 or more, got 2.5",
    ("model.resize=crop",): "model.resize must be one of hub, pad, got 'crop'",
    ("model.dtype=flot",): "model.dtype must be one of float32, bfloat16, float16, got 'flot'",
}


def test_what_the_run_time_checker_would_say_first_is_told(tmp_path):
    """In a process of its own: here argument types are checked before our own checks run."""
    done = subprocess.run(
        [sys.executable, "-c", UNCHECKED, str(tmp_path), json.dumps(list(UNCHECKED_CASES))],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    told = [line for line in done.stderr.splitlines() if line.startswith(("error", "2"))]
    for line, expected in zip(told[::2], UNCHECKED_CASES.values(), strict=True):
        assert expected in line
    assert told[1::2] == ["2"] * len(UNCHECKED_CASES)
    assert not list(tmp_path.rglob("record.json"))


def test_an_unknown_option_is_told_by_name(tmp_path, monkeypatch, capsys):
    with pytest.raises(SystemExit) as left:
        command(monkeypatch, f"output_root={tmp_path}", "methd=fastv")
    assert left.value.code == 2
    assert capsys.readouterr().err == "error: no field methd; did you mean method?\n"
    assert not list(tmp_path.iterdir())


def test_a_sweep_outlives_a_cell_that_fails(tmp_path, monkeypatch, capsys):
    """Where one that cannot start is launched all the same."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(launch, "failures", [])
    asked = (
        "method=fastv",
        "budget=none",
        "batch_size=2",
        "benchmark.limit=2",
        "prefill.keep=-1,9",
    )
    command(monkeypatch, "-m", *asked, "hydra.sweeper.unready=launch")
    assert len(launch.failures) == 1
    assert "keep must be a count" in launch.failures[0]
    assert [record["n"] for record in read_records(tmp_path / "outputs")] == [2]
    # nothing with a time in its name, nothing beside the output folder
    assert [path.name for path in tmp_path.iterdir()] == ["outputs"]
    assert sorted(path.name for path in (tmp_path / "outputs").iterdir()) == [".multirun", "run"]
