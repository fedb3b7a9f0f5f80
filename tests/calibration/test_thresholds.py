"""Thresholds are those of the run's own tokens, model and benchmark, or given by hand."""

import json

import pytest
import yaml
from omegaconf import OmegaConf
from safetensors.torch import load_file, save_file

from experiments.checks.run_checks import checked
from experiments.checks.thresholds import differing, require_matching_thresholds, stages
from experiments.cli.run_summary import off_budget
from mustdrop.presets import compose
from mustdrop.presets.compose import composed, conf_dir, resolved
from mustdrop.provenance import weights_mark as weights
from mustdrop.provenance.weights_mark import same_weights, weights_mark

CONF = conf_dir()
TUNED = sorted(path for path in (CONF / "tuned").rglob("*.yaml") if path.parent.name != "layers")
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


@pytest.mark.parametrize("path", TUNED, ids=lambda path: path.relative_to(CONF).as_posix())
def test_every_tuned_file_is_that_of_the_run_it_is_named_after(path):
    made = yaml.safe_load(path.read_text())["calibrated"]
    model, benchmark = path.relative_to(CONF / "tuned").parts[:2]
    option, _, budget = path.stem.rpartition("_")
    assert made["tokens"] == float(budget.removeprefix("t"))
    method = next(
        each.stem
        for each in sorted((CONF / "method").glob("*.yaml"))
        if f": {option}\n" in each.read_text()
    )
    cfg = composed(
        f"method={method}", f"model={model}", f"benchmark={benchmark}", f"budget={budget}"
    )
    config = checked(cfg)
    assert not differing(cfg, config)
    ours = made["stages"]["prefill"] or {}
    assert ours.items() <= (stages(config)["prefill"] or {}).items()


def test_another_count_of_tokens_takes_no_presets_thresholds():
    asked = ("method=mustdrop", "budget.tokens=100", "budget.name=t100")
    told = refused(*asked)
    assert "prefill.gamma 0.002545 and prefill.alpha 0.01 of conf/tuned were made for 192 " in told
    assert "not for the 100 of this run" in told
    cfg = composed(*command_in(told), name="calibrate")
    assert (cfg.method.name, cfg.budget.tokens, cfg.budget.name) == ("mustdrop", 100, "t100")
    assert (cfg.prefill.alpha, cfg.calibration.field) == (0.01, "prefill.gamma")
    # given by hand they are nobody's but the run's, even at the very value of the file
    for gamma in ("3.083e-3", "0.002545"):
        by_hand = (*asked, f"prefill.gamma={gamma}", "prefill.alpha=0.01")
        assert checked(composed(*by_hand))["budget"]["tokens"] == 100
    # a closed form has no threshold
    config = checked(composed("method=fastv", *asked[1:]))
    assert config["prefill"]["keep"] == 57 and config["budget"]["name"] == "t100"


def test_a_budget_is_called_after_its_tokens():
    assert composed("budget=t192").budget.name == "t192"
    assert composed("budget=t192", "budget.tokens=100").budget.name == "t100"
    told = refused("method=fastv", "budget.tokens=100", "budget.name=t192")
    assert "budget.name must not name another budget: it is t192, but budget.tokens is 100" in told
    assert checked(composed("method=fastv", "budget.tokens=100", "budget.name=mine"))
    # what drops nothing has no budget to be wrong
    assert checked(composed("method=vanilla", "budget.tokens=700"))["budget"] is None


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
    file = "pocket/pocket_vqa/dual_attention_t192"
    told = refused("benchmark=pocket_vqa_easy", f"tuned@prefill={file}")
    assert "made for the questions of split crowded_test, not for those of split easy_test" in told
    assert "made for the questions" in refused("benchmark.task.split=easy_test")
    assert checked(composed("benchmark.task.split=crowded_calibration"))
    told = refused("model=llava15_7b", "benchmark=gqa", "budget=t64",
                   "tuned@prefill=llava15_7b/textvqa/dual_attention_t64")  # fmt: skip
    assert "textvqa/textvqa_val.yaml" in told and command_in(told)[2] == "benchmark=gqa"
    # the words of the prompt count, where the rows lie does not
    textvqa = ("model=llava15_7b", "benchmark=textvqa", "budget=t64")
    assert checked(composed(*textvqa, "benchmark.data=/some/folder"))
    assert "prompt" in refused(*textvqa, "benchmark.task.prompt.ocr=false")


def test_a_missing_threshold_names_the_command_that_finds_it():
    told = refused("benchmark=pocket_pope", "method=mustdrop_individual", "vision.tau=60.0")
    assert told.startswith("prefill.alpha has no value for pocket x pocket_pope at t192: calibrate")
    assert set(command_in(told)) == {
        "model=pocket", "method=mustdrop_individual", "benchmark=pocket_pope", "budget=t192",
        "vision.tau=60.0", "calibration.field=prefill.alpha",
    }  # fmt: skip
    assert "prefill.gamma has no value and prefill.alpha has no value for " in refused(
        "budget=t144"
    )
    told = refused("method=sparsevlm", "budget=t144", "benchmark.limit=7", "traces=3", "seed=2")
    assert {"calibration.field=prefill.scale", "prefill.bias=0", "seed=2"} <= {*command_in(told)}
    assert not {"benchmark.limit=7", "traces=3"} & {*command_in(told)}
    for name in ("pope", "mme"):
        told = refused("model=llava15_7b", f"benchmark={name}", "benchmark.data=/x")
        assert f"{name} has no split to choose thresholds on, so calibrate on another" in told
        assert "benchmark.data=/x" not in command_in(told)
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
    assert "calibrated" not in json.dumps(config)
    assert OmegaConf.is_interpolation(cfg.prefill, "gamma")


def test_a_floor_of_another_budget_or_model_is_no_floor():
    cfg = composed("budget=t64", *BY_HAND)
    made = {"floor": 66.5, "tokens": 64.0, "model": {"pretrained": "packaged", "weights": None}}
    with compose.open_dict(cfg):
        cfg.budget.calibrated, cfg.budget.floor = made, "${.calibrated.floor}"
    assert checked(cfg)["budget"] == {"name": "t64", "tokens": 64, "floor": 66.5}
    cfg.budget.calibrated.tokens = 32.0
    with pytest.raises(
        ValueError, match=r"budget.floor 66.5 .* made for 32 tokens, not for the 64"
    ):
        checked(cfg)


def test_a_calibration_at_a_count_of_its_own_is_found_by_the_next_run(tmp_path, monkeypatch):
    folder = tmp_path / "tuned" / "pocket" / "pocket_vqa"
    folder.mkdir(parents=True)
    text = (CONF / "tuned/pocket/pocket_vqa/dual_attention_t128.yaml").read_text()
    text = text.replace("tokens: 128.0", "tokens: 100.0").replace("3.083e-03", "4.000e-03")
    (folder / "dual_attention_t100.yaml").write_text(text)
    for name in ("prefill", "vision", "budget"):
        (tmp_path / name).symlink_to(CONF / name)
    choices = {"model": "pocket", "benchmark": "pocket_vqa", "budget": "t192",
               "vision": "local_merge", "prefill": "dual_attention"}  # fmt: skip
    for benchmark in ("pocket_vqa", "pocket_pope"):  # with a preset's thresholds, and without
        cfg = composed("budget.tokens=100", f"benchmark={benchmark}")
        monkeypatch.setattr(compose, "conf_dir", lambda: tmp_path)
        compose.adopt(cfg, choices)
        monkeypatch.undo()
        assert (cfg.prefill.gamma, cfg.prefill.alpha) == (4e-3, 1e-2)
    cfg = composed("budget.tokens=100", "prefill.gamma=0.5")
    monkeypatch.setattr(compose, "conf_dir", lambda: tmp_path)
    compose.adopt(cfg, choices)
    assert (cfg.prefill.gamma, cfg.prefill.alpha) == (0.5, 1e-2)
    require_matching_thresholds(cfg, resolved(cfg))


def test_weights_are_told_apart_by_what_they_hold(tmp_path, monkeypatch):
    tensors = load_file(weights.FILE)
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
    record = {"counts": {"executed_average": executed}, "config": {"budget": {"tokens": tokens}}}
    assert off_budget(record) == expected
    assert off_budget({**record, "config": {"budget": None}}) == ""
