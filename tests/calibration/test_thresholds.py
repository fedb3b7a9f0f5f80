"""Thresholds are those of the run's own tokens, model and benchmark, or given by hand."""

import json

import pytest
import yaml
from omegaconf import OmegaConf
from safetensors.torch import load_file, save_file

from analysis.records.cells import load
from analysis.tables.summary import summary
from experiments import calibrate
from experiments.calibration_field import search_range
from experiments.checks.run_checks import checked
from experiments.checks.thresholds import differing, require_matching_model
from experiments.cli.run_summary import off_budget, reach_notes
from experiments.run import run
from mustdrop import presets
from mustdrop.budget import Budget
from mustdrop.presets.compose import composed, resolved
from mustdrop.presets.folders import conf_dir
from mustdrop.presets.from_budget import budget_floor
from mustdrop.presets.tuned import missing_fields
from mustdrop.provenance import weights_mark as weights
from mustdrop.provenance.weights_mark import same_weights, weights_mark

CONF = conf_dir()
ROWS = [
    pytest.param(path.stem, row, id=f"{path.stem}-{row['strategy']}-{row['budget']}")
    for path in sorted((CONF / "tuned").glob("*.yaml"))
    for row in yaml.safe_load(path.read_text())
    if "benchmark" in row
]
THRESHOLDED = (
    "mustdrop", "mustdrop_official", "mustdrop_no_keys", "mustdrop_global", "mustdrop_individual",
    "mustdrop_prefill", "mustdrop_window", "mustdrop_merge", "mustdrop_qwen", "sparsevlm",
)  # fmt: skip
BY_HAND = ("prefill.gamma=3.083e-3", "prefill.alpha=1e-2")


def refused(*overrides):
    """What a run with these overrides is told."""
    with pytest.raises(ValueError) as error:
        checked(composed(*overrides), overrides)
    told = str(error.value)
    assert "\n" not in told
    return told


def command_in(told):
    """The overrides of the command that a message holds."""
    words = told.partition("(mustdrop calibrate ")[2].partition(")")[0]
    return words.split()


@pytest.mark.parametrize(("model", "row"), ROWS)
def test_every_row_is_used_by_the_run_that_it_is_made_for(model, row):
    cfg = composed(
        f"method={row['method']}", f"model={model}", f"benchmark={row['benchmark']}",
        f"budget={row['budget']}",
    )  # fmt: skip
    config = checked(cfg)
    assert not differing(cfg, config)
    stage = next(
        each for each in ("prefill", "vision") if (CONF / each / f"{row['strategy']}.yaml").exists()
    )
    if "floor" in row:
        assert budget_floor(config) == pytest.approx(
            5.76 * float(row["floor"].rstrip("%")), abs=0.5
        )
    else:
        assert row["values"].items() <= config[stage].items()


def test_the_methods_with_thresholds_are_these():
    closed = {path.stem for path in (CONF / "method").glob("*.yaml")} - {*THRESHOLDED, "vanilla"}
    for method in closed:
        assert not missing_fields(composed(f"method={method}", "budget=101"))


@pytest.mark.parametrize("budget", ["100", "t191", "33.3%", "192.5"])
@pytest.mark.parametrize("method", THRESHOLDED)
def test_a_budget_without_a_row_is_refused_with_the_command_that_calibrates_it(method, budget):
    asked = (f"method={method}", f"budget={budget}")
    told = refused(*asked)
    name = Budget.parse(budget).name
    assert f"has no value for pocket x pocket_vqa at {name}: calibrate first (mustdrop " in told
    cfg = composed(*command_in(told), name="calibrate")
    assert (cfg.method.name, Budget.parse(cfg.budget)) == (method, Budget.parse(budget))
    # the command has no other open field than the one that it searches
    assert missing_fields(cfg) == [calibrate.searched_field(cfg)]


def test_thresholds_by_hand_are_the_runs_alone():
    asked = ("method=mustdrop", "budget=100")
    for gamma in ("3.083e-3", "0.002545"):  # the second is the value of another row
        by_hand = (*asked, f"prefill.gamma={gamma}", "prefill.alpha=0.01")
        assert checked(composed(*by_hand))["budget"]["tokens"] == 100
    # a closed form has no threshold
    config = checked(composed("method=fastv", "budget=100"))
    assert config["prefill"]["keep"] == 57 and config["budget"]["name"] == "t100"


def test_a_budget_above_what_enters_is_no_error():
    assert checked(composed("method=fastv", "budget=700"))["prefill"]["keep"] == 576
    assert checked(composed("method=vanilla", "budget=700"))["budget"] is None
    two = composed("method=fastv", "budget=50%", "vision=cls_topk")
    with pytest.raises(ValueError, match=r"executed average of 288 tokens, but vision\.keep=50 %"):
        checked(two)


def test_other_weights_under_the_same_preset_take_no_thresholds(tmp_path):
    told = refused("method=mustdrop", f"model.pretrained={tmp_path}")
    assert told.startswith("vision.tau 66 of conf/tuned was made for the model packaged (weights ")
    assert told.endswith(f", not for {tmp_path}: give vision.tau=<value>")
    told = refused("method=mustdrop", f"model.pretrained={tmp_path}", "vision.tau=60.0")
    assert f"not for {tmp_path}" in told
    cfg = composed(*command_in(told), name="calibrate")
    assert (cfg.model.pretrained, cfg.vision.tau) == (str(tmp_path), 60.0)
    by_hand = ("method=mustdrop", f"model.pretrained={tmp_path}", "vision.tau=60.0", *BY_HAND)
    assert checked(composed(*by_hand))
    # the authors' are LLaVA-1.5-7B's
    llava = ("model=llava15_7b", "benchmark=textvqa", "method=mustdrop", "budget=t128")
    assert checked(composed(*llava))["prefill"]["gamma"] == 1.2e-3
    assert "not for owner/other" in refused(*llava, "model.pretrained=owner/other")
    assert checked(composed(*llava, "model.pretrained=owner/other", *BY_HAND))
    told = refused("method=vtw", "prefill=vtw_kl", "budget=none", "model.pretrained=owner/other")
    assert "prefill.layer 9 of conf/tuned was made for the model packaged" in told


def test_another_benchmark_takes_no_thresholds():
    told = refused("benchmark=pocket_vqa_easy")
    assert "prefill.gamma has no value" in told and "benchmark=pocket_vqa_easy" in told
    told = refused("benchmark.task.split=easy_test")
    assert "made for the questions of split crowded_test, not for those of split easy_test" in told
    assert checked(composed("benchmark.task.split=crowded_calibration"))
    told = refused("model=llava15_7b", "benchmark=gqa", "budget=t64")
    assert "prefill.gamma has no value" in told and command_in(told)[2] == "benchmark=gqa"
    # the words of the prompt count, where the rows lie does not
    textvqa = ("model=llava15_7b", "benchmark=textvqa", "budget=t64")
    assert checked(composed(*textvqa, "benchmark.data=/some/folder"))
    assert "prompt" in refused(*textvqa, "benchmark.task.prompt.ocr=false")


def test_a_missing_threshold_names_the_command_that_finds_it():
    told = refused("benchmark=pocket_pope", "method=mustdrop_individual", "vision.tau=60.0")
    assert told.startswith("prefill.alpha has no value for pocket x pocket_pope at t192: calibrate")
    assert set(command_in(told)) == {
        "model=pocket", "method=mustdrop_individual", "benchmark=pocket_pope", "budget=t192",
        "vision.tau=60.0",
    }  # fmt: skip
    assert "prefill.gamma has no value and prefill.alpha has no value for " in refused(
        "budget=t144"
    )
    told = refused("method=sparsevlm", "budget=t144", "benchmark.limit=7", "traces=3", "seed=2")
    assert {"prefill.bias=0", "seed=2"} <= {*command_in(told)}
    assert not {"benchmark.limit=7", "traces=3"} & {*command_in(told)}
    for name in ("pope", "mme"):
        told = refused("model=llava15_7b", f"benchmark={name}", "benchmark.data=/x")
        assert f"{name} has no split to choose thresholds on, so calibrate on another" in told
        assert "benchmark.data=/x" not in command_in(told)
        assert "take its values with calibrate_with=gqa, or give prefill.gamma=<value>" in told
        cfg = composed(*command_in(told), name="calibrate")
        assert cfg.benchmark.calibration is not None and cfg.model.name == "llava15_7b"
    assert refused("budget=none").endswith("give prefill.gamma=<value> prefill.alpha=<value>")
    told = refused("model=llava15_7b", "benchmark=gqa", "method=vtw", "prefill=vtw_kl")
    assert "find it with mustdrop vtw write=true model=llava15_7b" in told
    for chosen in ("experiment=table1", "inputs=authors"):  # by an experiment, or as typed
        told = refused("model=llava15_7b", "benchmark=gqa", chosen, "method=mustdrop", "budget=t64")
        assert command_in(told).count("inputs=authors") == 1


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (("vision.tau=50.0",), "vision.tau is 50.0, and was 66.0 when prefill.gamma and prefill."),
        (("prefill.layers=[0,2]",), "prefill.layers is [0, 2], and was [0, 2, 3, 5] when "),
        (("prefill.alpha=0.5",), "prefill.alpha is 0.5, and was 0.01 when prefill.gamma was "),
        (("prefill.gamma=0.5",), "prefill.gamma is 0.5, and was 0.002545 when prefill.alpha was "),
        (("key_tokens=none",), "key_tokens is none, and was rule outlier, mu 1.5"),
        (("dropper.positions=compact",), "positions is compact, and was original when "),
        (("image=blank",), "image is blank, and was none when "),
        (("decode=none",), None),
        (("dropper.decode_positions=cache_length",), None),
        (BY_HAND, None),
        (("method=fastv", "prefill.layer=3"), None),
    ],
)
def test_what_differs_from_the_method_that_was_calibrated_is_said(overrides, expected):
    cfg = composed("budget=t192", *overrides)
    told = differing(cfg, checked(cfg))
    assert len(told) == (expected is not None)
    assert not expected or told[0].startswith(expected)


def test_a_stage_is_built_from_its_fields_and_a_run_is_keyed_by_them_alone():
    cfg = composed("budget=t192")
    config = resolved(cfg)
    names = ["_target_", "gamma", "alpha", "layers", "strict", "min_keep"]
    assert list(config["prefill"]) == list(config["dropper"]["prefill"]) == names
    assert "tuned" not in json.dumps(config)
    assert OmegaConf.is_interpolation(cfg.prefill, "gamma")


def test_a_row_with_a_floor_is_a_run_without_samples(tmp_path, monkeypatch):
    rows = [
        {"strategy": "dual_attention", "method": "mustdrop", "benchmark": "pocket_vqa",
         "budget": "t30", "floor": 33.5},
        {"strategy": "dual_attention", "method": "mustdrop", "benchmark": "pocket_vqa",
         "budget": "5%", "floor": "6.25%"},
    ]  # fmt: skip
    write_users_table(tmp_path, monkeypatch, rows)
    for budget, floor in (("30", 33.5), ("5%", 36.0)):
        assert budget_floor(checked(composed(f"budget={budget}"))) == floor
        again = composed(f"budget={budget}", "prefill.alpha=0.03", name="calibrate")
        assert search_range(again, "prefill.gamma") == (1e-5, 0.5)  # it can be searched again
    assert "no value" in refused("budget=31")


def test_a_floor_is_a_share_where_images_differ_in_size(tmp_path, monkeypatch, capsys):
    """Its run is finished without samples and without the checkpoint, and says the share."""
    row = {"strategy": "dual_attention", "method": "mustdrop", "benchmark": "gqa"}
    rows = [{**row, "budget": "160/2880", "floor": "57.3%"}]
    write_users_table(tmp_path, monkeypatch, rows, "llava_next_7b")
    given = ["model=llava_next_7b", "benchmark=gqa", "method=mustdrop", "budget=160/2880"]
    cfg = composed(*given, f"output_root={tmp_path / 'runs'}")
    assert budget_floor(checked(cfg)) == "57.3%"
    record = run(cfg)
    assert (record["floor"], record["n"], record["budget"]) == ("57.3%", 0, "s5.556")
    assert "floor 57.3%, the budget cannot be reached" in capsys.readouterr().out
    ((cell,), frame) = load(tmp_path / "runs"), summary(tmp_path / "runs")
    assert cell.metric is None and list(frame.floor) == ["57.3%"]
    with pytest.raises(
        ValueError, match=r"least executed average of mustdrop on .* is 57\.3%, got"
    ):
        presets.load("mustdrop", model="llava_next_7b", benchmark="gqa", budget="160/2880")

    again = composed(*given, "prefill.alpha=1e-2", name="calibrate")
    require_matching_model(again, "prefill.gamma")
    assert search_range(again, "prefill.gamma") == (1e-5, 0.5)  # it can be searched again


def test_a_users_own_row_comes_before_the_packaged_one(tmp_path, monkeypatch):
    row = {"strategy": "dual_attention", "method": "mustdrop", "benchmark": "pocket_vqa"}
    values = {"gamma": 4e-3, "alpha": 1e-2}
    rows = [{**row, "budget": "t100", "values": values}, {**row, "budget": 128, "values": values}]
    before = composed("budget=128").prefill.gamma
    write_users_table(tmp_path, monkeypatch, rows)
    for budget in ("100", "t128"):
        assert composed(f"budget={budget}").prefill.gamma == 4e-3 != before
    assert "no value" in refused("budget=100", "benchmark=pocket_pope")
    assert composed("budget=100", "prefill.gamma=0.5").prefill.gamma == 0.5
    (tmp_path / "conf" / "tuned" / "pocket.yaml").write_text("gamma: 3\n")
    with pytest.raises(ValueError, match="must be a list of rows"):
        missing_fields(composed("budget=100"))


def write_users_table(tmp_path, monkeypatch, rows, model="pocket"):
    folder = tmp_path / "conf" / "tuned"
    folder.mkdir(parents=True)
    (folder / f"{model}.yaml").write_text(yaml.safe_dump(rows))
    monkeypatch.chdir(tmp_path)


def test_weights_are_told_apart_by_what_they_hold(tmp_path, monkeypatch):
    tensors = load_file(weights.PACKAGED_FOLDERS["packaged"] / weights.FILE)
    first, second, tuned = (tmp_path / name for name in ("first", "second", "tuned"))
    for folder in (first, second, tuned):
        folder.mkdir()
    save_file(tensors, first / "model.safetensors")
    names = sorted(tensors)
    for number, part in enumerate((names[::2], names[1::2])):  # other files, the same tensors
        save_file({name: tensors[name] for name in part}, second / f"model-{number}.safetensors")
    assert weights_mark(str(first)) == weights_mark(str(second)) is not None
    last = names[-1]
    save_file({**tensors, last: tensors[last] + 1}, tuned / "model.safetensors")
    assert weights_mark(str(tuned)) not in (weights_mark(str(first)), None)
    assert weights_mark("owner/nowhere") is None and weights_mark(str(tmp_path)) is None
    (tuned / "model.safetensors").write_bytes(b"version https://git-lfs")
    assert weights_mark(str(tuned)) is None

    made = {"pretrained": "owner/name", "weights": weights_mark(str(first))}
    model = {"pretrained": str(second), "revision": None}
    assert same_weights(made, model)
    assert not same_weights({**made, "weights": "0" * 12}, model)
    assert same_weights(made, {**model, "pretrained": "owner/name"})
    assert not same_weights({**made, "weights": None}, model)


@pytest.mark.parametrize(
    ("executed", "tokens", "expected"),
    [
        (180.3, 100, " (≠ budget: +80 %)"), (119.6, 128, " (≠ budget: −7 %)"), (128.5, 128, ""),
        (12.0, 0, " (≠ budget)"), (0.0, 0, ""),
    ],
)  # fmt: skip
def test_the_last_line_says_how_far_off_its_budget_a_run_is(executed, tokens, expected):
    record = {"counts": {"executed_average": executed, "nominal": tokens}}
    assert off_budget(record) == expected
    assert off_budget({"counts": {"executed_average": executed, "nominal": None}}) == ""


def test_the_last_lines_say_for_which_prompts_a_budget_is_out_of_reach():
    assert reach_notes({}) == []
    reach = {"least_average": {"tokens": 75.04, "share_of_prompts": 0.4}}
    assert (
        "below the least executed average of the method, 75.0 tokens, for 40% "
        in (reach_notes({"reach": reach})[0])
    )
    reach = {"most_average": {"tokens": 576.0, "share_of_prompts": 1.0}}
    assert (
        "above the 576.0 vision tokens of 100% of the prompts" in reach_notes({"reach": reach})[0]
    )
