"""``mustdrop profile``: one record in the folder of the run, kept by round, of one setting."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import tracked
import wandb_log
from families import FAMILIES
from models import tiny_llava

from experiments import efficiency
from experiments.efficiency import profile
from experiments.profiling import record as recording
from experiments.profiling.shown import shown
from experiments.tracking.follow import fully_tracked, watched
from mustdrop.presets.compose import composed, resolved
from mustdrop.runs.folder import read_efficiency, run_folder

ROOT = Path(__file__).parents[2]
SCHEDULE = {"merged_windows": 2, "after": [14, 12, 10, 8]}


@pytest.fixture(scope="module", autouse=True)
def rates():
    """Rates of a device, which take a second to measure; tests/profiling measures them."""
    with pytest.MonkeyPatch.context() as patch:
        given = {"flops_per_second": 1e11, "bytes_per_second": 1e10}
        patch.setattr(efficiency, "measured_rates", lambda *_: given)
        yield


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Overrides for a tiny model that is built from its config.json."""
    folder = tmp_path_factory.mktemp("tiny")
    tiny_llava().config.save_pretrained(folder)
    return [
        f"model.pretrained={folder}", "model.name=tiny", "model.layers=6", "model.vision_tokens=36",
        "model.merging_blocks=3", "profile.weights=random", "threads=1", "device=cpu",
        "profile.rounds=1", "profile.warm_ups=0", "profile.new_tokens=[1,2]",
    ]  # fmt: skip


def profiled(root, *overrides):
    return profile(composed(f"output_root={root}", *overrides, name="profile"))


@pytest.fixture(scope="module")
def fastv(tiny, tmp_path_factory):
    """A finished profile of FastV on two prompt lengths."""
    arm = ["method=fastv", "budget=50%", "profile.images=[1,2]"]
    root = tmp_path_factory.mktemp("fastv")
    return profiled(root, *tiny, *arm), [*tiny, *arm], root


def test_a_profile_has_all_arms_and_says_where_it_was_measured(fastv):
    record, _, _ = fastv
    assert (record["state"], record["method"], record["budget"]) == ("done", "fastv", "s50")
    assert record["hardware"]["name"] and record["settings"]["torch version"] == torch.__version__
    assert record["rates"]["flops_per_second"] > 0 and record["timing"]["cpu_seconds"] > 0
    for cell, slots in zip(record["cells"], (36, 72), strict=True):
        assert (cell["vision_tokens"], cell["counts"]) == (slots, "the budget, in closed form")
        assert set(cell["arms"]) == {"vanilla", "method", "reference", "random"}
        facts = {name: arm["facts"] for name, arm in cell["arms"].items()}
        assert facts["method"]["executed_average"] == pytest.approx(slots / 2, abs=1)
        tokens = [facts[name]["vision_tokens"] for name in ("method", "reference", "random")]
        assert tokens[0] == tokens[1] == tokens[2] != facts["vanilla"]["vision_tokens"]
        assert facts["reference"]["flops"] < facts["method"]["flops"] < facts["vanilla"]["flops"]
        summary = cell["summary"]["method"]
        assert summary["ttft_ms"]["n"] == 1 and summary["reached"]["flops_share"] > 0
        assert {"ttft_ms/vanilla", "e2e_2_ms/reference"} <= set(summary["ratios"])
        assert len(cell["processor_ms"]) == 3
    lengths = [row for row in record["break_even"] if row["axis"] == "vision_tokens"]
    assert {row["new_tokens"] for row in lengths} == {1, 2}
    text = shown(record)
    assert "fastv at s50" in text and "no length is sure to pay" in text
    assert not Path(record["folder"], "samples.jsonl").exists()


def test_a_finished_profile_is_not_measured_again_and_more_rounds_are_added(fastv, monkeypatch):
    record, arm, root = fastv
    with monkeypatch.context() as patch:
        patch.setattr(efficiency, "prepared", None)
        again = profiled(root, *arm)
    assert again["cells"] == record["cells"]
    longer = profiled(root, *arm, "profile.rounds=2")
    times = [cell["arms"]["method"]["rounds"]["ttft_ms"] for cell in longer["cells"]]
    before = [cell["arms"]["method"]["rounds"]["ttft_ms"] for cell in record["cells"]]
    assert [row[:1] for row in times] == before and {len(row) for row in times} == {2}


def test_a_profile_stands_in_the_folder_of_its_run(fastv):
    record, arm, root = fastv
    run = [text for text in arm if not text.startswith(("profile.", "model.vision_tokens"))]
    config = composed(f"output_root={root}", *run, "model.vision_tokens=null")
    assert run_folder(resolved(config)) == Path(record["folder"])


def test_frames_of_a_video_are_profiled_beside_images(tmp_path):
    folder = tmp_path / "tiny"
    FAMILIES["qwen2_5_vl"].model().config.save_pretrained(folder)
    record = profiled(
        tmp_path, "model=qwen2_5_vl_7b", f"model.pretrained={folder}", "model.name=small",
        "model.dtype=float32", "model.layers=6", "model.merging_blocks=4", "method=fastv",
        "budget=50%", "profile.weights=random", "profile.images=[1]", "profile.frames=[4]",
        "profile.size=[48,64]", "profile.rounds=1", "profile.warm_ups=0", "threads=1", "device=cpu",
    )  # fmt: skip
    image, video = record["cells"]
    assert [(c["images"], c["frames"]) for c in (image, video)] == [(1, 0), (0, 4)]
    assert video["vision_tokens"] == 2 * image["vision_tokens"] > 0
    method = video["arms"]["method"]["facts"]
    assert method["executed_average"] == pytest.approx(video["vision_tokens"] / 2, rel=0.05)
    assert method["flops"] < video["arms"]["vanilla"]["facts"]["flops"]
    assert f"{video['vision_tokens']} vision tokens of 4 frames" in shown(record)
    lengths = [row for row in record["break_even"] if row["axis"] == "vision_tokens"]
    assert {len(row["points"]) for row in lengths} == {2}


def test_a_stop_keeps_the_rounds_and_the_same_command_goes_on(tiny, tmp_path, monkeypatch):
    arm = [*tiny, "method=fastv", "budget=t18", "profile.rounds=3"]
    save = recording.EfficiencyRecord.save

    def save_then_stop(self):
        save(self)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(recording.EfficiencyRecord, "save", save_then_stop)
        profiled(tmp_path, *arm)
    (path,) = tmp_path.rglob("efficiency.json")
    partial = read_efficiency(path.parent)
    assert (partial["state"], partial["cells"][0]["rounds"]) == ("running", 1)
    done = profiled(tmp_path, *arm)
    assert (done["state"], done["sessions"], done["cells"][0]["rounds"]) == ("done", 2, 3)
    first = partial["cells"][0]["arms"]["vanilla"]["rounds"]["ttft_ms"]
    assert done["cells"][0]["arms"]["vanilla"]["rounds"]["ttft_ms"][:1] == first


@pytest.mark.slow
def test_thresholds_are_calibrated_or_counts_are_given_and_the_record_says_which(tiny, tmp_path):
    arm = [*tiny, "profile.new_tokens=[1]", "vision.window=3"]
    (cell,) = profiled(tmp_path / "a", *arm, "budget=t12")["cells"]
    assert cell["counts"].startswith("calibrated on these prompts: vision.tau=")
    assert cell["arms"]["method"]["facts"]["executed_average"] == pytest.approx(12, rel=0.1)
    path = tmp_path / "counts.json"
    path.write_text(json.dumps({"tiny": {"mustdrop": {"t12": SCHEDULE}}}))
    layers = "prefill.layers=[0,1,2,3]"
    given = [*arm, layers, "budget=t12", f"profile.counts={path}"]
    (cell,) = profiled(tmp_path / "b", *given)["cells"]
    assert "the method computes its scores and its selection" in cell["counts"]
    facts = cell["arms"]["method"]["facts"]
    assert facts["vision_tokens"][1:] == [14, 12, 10, 8, 8]
    with pytest.raises(ValueError, match=r"no counts .* of mustdrop at t9 for tiny"):
        profiled(tmp_path / "c", *arm, "budget=t9", f"profile.counts={path}")


def test_fewer_layers_are_extrapolated_and_labelled(tiny, tmp_path):
    record = profiled(tmp_path, *tiny, "method=fastv", "budget=t18", "profile.depth=3")
    assert record["depth"] == {"measured": 3, "full": 6}
    summary = record["cells"][0]["summary"]["method"]
    assert summary["full_depth"]["ttft_ms"] > summary["ttft_ms"]["median"]


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("profile.weights=drawn", "profile.weights must be checkpoint or random, got 'drawn'"),
        ("profile.rounds=0", "profile.rounds must be a count of 1 or more, got 0"),
        ("profile.batch=[1,0]", "profile.batch must be a count of 1 or more, got 0"),
        ("profile.batch=[]", r"profile.batch must be a list of counts of 1 or more, got \[\]"),
        ("profile.images=[]", r"profile.images must be a list of counts of 1 or more, got \[\]"),
        ("profile.frames=[4]", "profile.frames needs a model that reads videos"),
        ("profile.prompts=benchmark", "a model without files has no tokenizer"),
        ("profile.counts=config", "thresholds mean nothing there"),
        ("profile.counts=nowhere.json", "the path of a file, got 'nowhere.json'"),
        ("profile.size=[336]", r"profile.size must be \[height, width\]"),
        ("profile.depth=7", "profile.depth must be at most the 6 layers of tiny, got 7"),
        ("model.pretrained=nobody/nothing", "the sizes of tiny are not known without a network"),
        ("budget=none", "there is no budget|budget: none"),
        ("model.device_map=auto", "model.device_map must be null, got 'auto'"),
        ("device=cuda:9", "device=cuda:9 cannot be used"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(tiny, tmp_path, override, sentence):
    with pytest.raises(ValueError, match=sentence):
        profiled(tmp_path, *tiny, "method=mustdrop", override)


def test_images_belong_to_random_prompts(tmp_path):
    with pytest.raises(ValueError, match=r"profile.images, .* need profile.prompts=random"):
        profiled(tmp_path, "profile.images=[2]")
    with pytest.raises(ValueError, match=r"profile.frames and profile.size need"):
        profiled(tmp_path, "profile.frames=[2]")


@pytest.mark.slow
def test_the_packaged_model_is_profiled_on_its_questions(tmp_path):
    fields = ["profile.rounds=1", "profile.warm_ups=0", "profile.new_tokens=[1]", "threads=1"]
    record = profiled(tmp_path, *fields, "profile.batch=[2]")
    (cell,) = record["cells"]
    assert cell["counts"] == "the thresholds and counts of the config"
    assert (cell["batch"], cell["vision_tokens"], cell["arms"]["method"]["facts"]["ragged"]) == (
        2, 576, True,
    )  # fmt: skip
    vanilla, method = (cell["arms"][name]["facts"] for name in ("vanilla", "method"))
    assert method["flops"] < vanilla["flops"] and method["kv_bytes"] < vanilla["kv_bytes"]


@pytest.mark.slow
def test_a_killed_profile_goes_on_with_the_same_command(tiny, tmp_path):
    command = [
        sys.executable, "-m", "mustdrop.cli", "profile", f"output_root={tmp_path}", *tiny,
        "method=fastv", "budget=t18", "profile.rounds=400",
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list(tmp_path.rglob("efficiency.json")) and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.wait()
    (path,) = tmp_path.rglob("efficiency.json")
    rounds = read_efficiency(path.parent)["cells"][0]["rounds"]
    assert 1 <= rounds < 400
    more = [*command[:-1], f"profile.rounds={rounds + 1}"]
    subprocess.run(more, env=environment, check=True, capture_output=True)
    done = read_efficiency(path.parent)
    assert (done["state"], done["cells"][0]["rounds"]) == ("done", rounds + 1)


@pytest.mark.slow
def test_a_cut_sequence_gets_its_first_token_sooner_than_the_whole_at_a_bench_size(tmp_path):
    fields = ["profile.rounds=6", "threads=1", "method=fastv", "budget=t64"]
    (cell,) = profiled(tmp_path, *fields, "profile.new_tokens=[1]")["cells"]
    summary = cell["summary"]
    assert summary["reference"]["ratios"]["ttft_ms/vanilla"]["high"] < 1
    assert summary["method"]["ratios"]["ttft_ms/vanilla"]["high"] < 1


def test_a_tracker_gets_the_numbers_the_table_and_the_file(fastv, tmp_path, monkeypatch):
    """Real wandb, offline; its log is read back."""
    folder = Path(fastv[0]["folder"])
    record = read_efficiency(folder)
    tracked.clean(monkeypatch, tmp_path)
    config = composed("tracker=wandb", "tracker.mode=offline")
    with watched(resolved(config)["tracker"], folder, live=False) as tracker:
        tracker.start()
    log = wandb_log.read(*tracked.logs(folder.resolve()))
    assert (log.summary["state"], log.exit_code) == ("profiled", 0)
    summary = record["cells"][0]["summary"]["method"]
    ratio = summary["ratios"]["ttft_ms/vanilla"]["median"]
    assert log.summary["efficiency/method/ttft_ms/vanilla"] == pytest.approx(ratio)
    assert log.summary["efficiency"]["nrows"] == 8  # four arms of two batches
    assert ["efficiency.json"] in log.artifacts.values()
    assert fully_tracked(folder.resolve())
    (folder / "efficiency.json").write_text(json.dumps({**record, "updated": "later"}))
    assert not fully_tracked(folder.resolve())


def test_rounds_of_other_settings_are_refused(fastv):
    _, arm, root = fastv
    with pytest.raises(ValueError, match=r"other settings \(new_tokens \[1, 2\] -> \[1, 3\]\)"):
        profiled(root, *arm, "profile.new_tokens=[1,3]")


@pytest.mark.slow
def test_force_measures_again_and_keeps_the_old_file(fastv):
    record, arm, root = fastv
    forced = profiled(root, *arm, "profile.new_tokens=[1,3]", "force=true")
    kept = json.loads(Path(record["folder"], "efficiency.json.1").read_text())
    assert forced["sessions"] == 1 and kept["settings"]["new_tokens"] == [1, 2]


def test_a_record_of_another_format_is_refused(fastv, tmp_path):
    record, _, _ = fastv
    folder = tmp_path / "old"
    folder.mkdir()
    (folder / "efficiency.json").write_text(json.dumps({**record, "schema": 1}))
    with pytest.raises(ValueError, match=r"has format 1, this version writes 2: force"):
        recording.EfficiencyRecord(folder, record["settings"], {}, False)
