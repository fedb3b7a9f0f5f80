"""Every file under conf/ composes, names what it builds, and leaves nothing where it is off."""

import dataclasses
import inspect
import itertools
import json
from pathlib import Path

import pytest
import yaml
from hydra.utils import get_class, instantiate
from omegaconf import OmegaConf

from analysis.records.variants import alike, variants
from experiments.checks.thresholds import differing
from mustdrop import TokenDropper
from mustdrop.budget import Budget, keep_for
from mustdrop.decode.output_aware import OutputAware
from mustdrop.judging.judge import Judge
from mustdrop.key_tokens.cls_attention import ClsAttention
from mustdrop.prefill.dual_attention import DualAttention
from mustdrop.prefill.fastv import FastV
from mustdrop.presets.compose import composed, resolved
from mustdrop.presets.folders import conf_dir
from mustdrop.presets.from_budget import STAGES, budget_floor
from mustdrop.presets.tuned import missing_fields
from mustdrop.runs.folder import run_folder
from mustdrop.runs.key import LATER_FIELDS, run_key
from mustdrop.vision.local_merge import LocalMerge

CONF = conf_dir()
# the training recipe has scripts and tests of its own
FILES = sorted(
    {*CONF.rglob("*.yaml")} - {CONF / f"train_{name}.yaml" for name in ("pocket", "smol")}
)
GROUPS = (
    "model", "inputs", "benchmark", "controls", "experiment", "image", "launcher",
    "method", "tracker", *STAGES,
)  # fmt: skip
OPTIONS = [(group, path.stem) for group in GROUPS for path in sorted((CONF / group).glob("*.yaml"))]
METHODS = [name for group, name in OPTIONS if group == "method"]
TABLES = sorted((CONF / "tuned").glob("*.yaml"))
# what acts on what another arm did, prompt by prompt: no setting, so no yaml
TOLD = {"prefill": {"scheduled_random", "scheduled_grid"}, "decode": {"scheduled"}}
# what a strategy's yaml leaves open, so that every option composes on its own
THRESHOLDS = ("prefill.gamma=1e-3", "prefill.alpha=1e-2")
OPEN = (*THRESHOLDS, "prefill.scale=13.5", "prefill.bias=0.0")


def built(*overrides: str) -> TokenDropper:
    return instantiate(composed(*overrides).dropper)


def targets(node, path=""):
    """Every mapping of a yaml that names what it builds."""
    if isinstance(node, dict):
        if "_target_" in node:
            yield path, node
        for name, value in node.items():
            yield from targets(value, f"{path}.{name}")


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_every_option_composes_with_every_value_in_place(group, option):
    chosen = [f"{group}={option}"]
    missing = missing_fields(composed(*chosen))
    chosen += [each for each in OPEN if each.split("=")[0] in missing]
    config = resolved(composed(*chosen))
    json.dumps(config)
    if option == "none" and group in STAGES:
        assert config[group] is None


def test_no_group_is_forgotten():
    found = {path.relative_to(CONF).parts[0] for path in FILES if path.parent != CONF}
    assert found == {*GROUPS, "judge", "tuned", "hydra"}


@pytest.mark.parametrize("option", [path.stem for path in sorted((CONF / "judge").glob("*.yaml"))])
def test_every_judge_composes_and_can_be_built(option):
    cfg = composed(f"judge={option}", "judge.model=a", name="judge")
    assert isinstance(instantiate(cfg.judge, _convert_="all"), Judge)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(CONF).as_posix())
def test_a_target_gets_exactly_its_fields_in_their_order(path):
    for place, node in targets(yaml.safe_load(path.read_text())):
        name = node["_target_"]
        made = get_class(name)
        fields = list(inspect.signature(made).parameters)
        given = [name for name in node if not name.startswith("_")]
        assert given == fields, f"{path.name}{place}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(CONF).as_posix())
def test_plain_yaml_reads_the_numbers_that_hydra_reads(path):
    """``1e-3`` is a number to OmegaConf and text to YAML: whoever reads a record is misled."""
    plain = yaml.safe_load(path.read_text())
    ours = OmegaConf.to_container(OmegaConf.load(path))
    assert plain == ours


@pytest.mark.parametrize("stage", STAGES)
def test_every_strategy_has_a_yaml(stage):
    package = Path(inspect.getfile(TokenDropper)).parent / stage
    files = {path.stem for path in package.glob("*.py") if path.stem != "__init__"}
    named = {
        yaml.safe_load(path.read_text()).get("_target_") for path in (CONF / stage).glob("*.yaml")
    }
    assert files - TOLD.get(stage, set()) == {name.split(".")[2] for name in named - {None}}


@pytest.mark.parametrize("budget", ["t192", "t128"])
@pytest.mark.parametrize("method", METHODS)
def test_every_method_builds_a_dropper(method, budget):
    chosen = [f"method={method}", f"budget={budget}"]
    # an ablation that is tuned for other budgets alone
    open_ = missing_fields(composed(*chosen))
    dropper = built(*chosen, *(each for each in OPEN if each.split("=")[0] in open_))
    assert isinstance(dropper, TokenDropper)
    used = [stage for stage in STAGES if getattr(dropper, stage) is not None]
    assert bool(used) == (method != "vanilla")


def test_the_presets_hold_the_papers_and_the_codes_choices():
    thresholds = {"gamma": 1.2e-3, "alpha": 1e-3}
    chosen = ("model=llava15_7b", "budget=none", "prefill.gamma=1.2e-3", "prefill.alpha=1e-3")
    assert built("method=mustdrop", *chosen) == TokenDropper(
        LocalMerge(57.6, window=3, block=0, score="sum", strict=True, crops="own", order="raster"),
        ClsAttention("outlier", mu=1.5),
        DualAttention(**thresholds, layers=(2, 6, 10, 14), strict=False),
        OutputAware(from_layer=2),
        positions="original",
        vision_positions="compact",
        decode_positions="continue",
    )
    assert built("method=mustdrop_official", *chosen) == TokenDropper(
        LocalMerge(0.8, 3, 0, score="mean", strict=False, crops="fewest", order="similarity"),
        ClsAttention("ratio", ratio=0.08, block=-1),
        DualAttention(**thresholds, layers=(2, 6, 10, 14), strict=True, min_keep=0),
        OutputAware(from_layer=2),
        positions="compact",
        vision_positions="compact",
        decode_positions="cache_length",
    )
    assert built("method=fastv", "model=llava15_7b", "budget=t192") == TokenDropper(
        prefill=FastV(keep=166, layer=1)
    )


@pytest.mark.parametrize(
    ("benchmark", "budget", "gamma", "alpha"),
    [
        ("textvqa", "t192", 0.001, 0.001),
        ("textvqa", "t128", 0.0012, 0.001),
        ("textvqa", "t64", 0.011, 0.01),
        ("vizwiz", "t64", 0.005, 0.001),
    ],
)
@pytest.mark.parametrize("variant", ["", "_official"])
def test_the_published_thresholds_are_presets(variant, benchmark, budget, gamma, alpha):
    dropper = built(
        f"method=mustdrop{variant}", "model=llava15_7b", f"benchmark={benchmark}",
        f"budget={budget}",
    )  # fmt: skip
    assert isinstance(dropper.prefill, DualAttention)
    assert (dropper.prefill.gamma, dropper.prefill.alpha) == (gamma, alpha)


@pytest.mark.parametrize("path", TABLES, ids=lambda path: path.stem)
def test_a_row_holds_fields_of_the_strategy_it_names(path):
    assert (CONF / "model" / path.name).exists()
    seen = set()
    for row in yaml.safe_load(path.read_text()):
        files = [CONF / stage / f"{row['strategy']}.yaml" for stage in STAGES]
        (file,) = (each for each in files if each.exists())
        node = yaml.safe_load(file.read_text())
        for field in row.get("values", ()):
            assert str(node[field]).startswith(f"${{tuned:{row['strategy']},{field}")
        assert ("values" in row) != ("floor" in row)
        if "benchmark" in row:
            assert (CONF / "benchmark" / f"{row['benchmark']}.yaml").exists()
            assert (CONF / "method" / f"{row['method']}.yaml").exists()
            assert {"model", "task", "split", "stages"} <= set(row)
        if "executed" in row:
            assert {"held_out", "n", "seed", "command", "versions"} <= set(row)
        # one row for a strategy, benchmark and budget
        key = (row["strategy"], row.get("benchmark"), str(row.get("budget")))
        assert key not in seen
        seen.add(key)


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_switched_off_on_the_command_line_stays_off(stage):
    for budget in ("t192", "none"):
        chosen = ["method=mustdrop", f"budget={budget}", f"{stage}=none"]
        if stage != "prefill" and budget == "none":
            chosen += THRESHOLDS
        assert getattr(built(*chosen), stage) is None


def test_tau_is_the_models_own_whatever_the_budget_and_the_benchmark():
    for budget in ("t192", "t64", "t288", "none"):
        for benchmark in ("pocket_vqa", "pocket_vqa_easy", "pocket_pope"):
            chosen = ("method=mustdrop", f"benchmark={benchmark}", f"budget={budget}")
            assert composed(*chosen).vision.tau == 66.0
    for value in (3.0, 57.6):  # by hand, also at the very value of the preset
        assert composed("method=mustdrop", f"vision.tau={value}").vision.tau == value
    assert composed("method=mustdrop", "vision=local_merge_official").vision.tau == 0.917
    llava = ("model=llava15_7b", "benchmark=pocket_vqa", *THRESHOLDS)
    assert composed("method=mustdrop", *llava).vision.tau == 57.6
    # the trap: tuning a stage that is switched off would bring it back without its _target_
    assert composed("method=mustdrop", "vision=none").vision is None
    assert composed("method=fastv").vision is None


def test_the_ablations_of_dual_attention_leave_out_what_they_say():
    for name, left_out in (("global", "alpha"), ("individual", "gamma"), ("no_keys", None)):
        dropper = built(f"method=mustdrop_{name}", "budget=t64")
        assert isinstance(dropper.prefill, DualAttention) and dropper.key_tokens is None
        thresholds = {"gamma": dropper.prefill.gamma, "alpha": dropper.prefill.alpha}
        assert [name for name, value in thresholds.items() if value is None] == (
            [left_out] if left_out else []
        )
        assert dropper.prefill.layers == (0, 2, 3, 5)
        assert isinstance(dropper.vision, LocalMerge) and dropper.decode == OutputAware(2)
    merge = built("method=mustdrop_merge", "budget=t192")
    assert merge == TokenDropper(merge.vision, vision_positions="compact")
    whole = built("method=mustdrop", "budget=t128")
    assert built("method=mustdrop_prefill", "budget=t128") == dataclasses.replace(
        whole, decode=None
    )


def test_another_strategy_leaves_no_threshold_behind():
    assert built("method=mustdrop", "prefill=fastv").prefill == FastV(keep=157, layer=0)
    tuned = composed("method=mustdrop", "budget=t192").prefill
    assert set(tuned) > set(composed("method=mustdrop", "prefill=fastv").prefill) - {
        "keep",
        "layer",
        "rows",
    }


def test_a_budget_in_closed_form_is_what_is_executed():
    """By summing layers, for every layer of two depths and a range of budgets."""
    for layers, tokens in ((8, 576), (32, 2880)):
        for layer, budget in itertools.product(range(-1, layers - 1), range(1, tokens + 1, 13)):
            keep = keep_for(Budget(tokens=budget), tokens, layers, layer)
            entered = [tokens] * (layer + 1) + [keep] * (layers - layer - 1)
            fewest = (layer + 1) * tokens / layers
            assert abs(sum(entered) / layers - max(budget, fewest)) <= 0.5


def test_a_budget_out_of_reach_is_a_floor_and_no_error():
    config = resolved(composed("method=fastv", "model=llava15_7b", "budget=t64", "prefill.layer=3"))
    assert budget_floor(config) == 4 * 576 / 32
    assert budget_floor(resolved(composed("method=fastv", "budget=t192"))) is None
    share = resolved(composed("method=fastv", "model=llava15_7b", "budget=6%"))
    assert budget_floor(share) == 36


def test_a_budget_is_a_value_and_its_name_is_the_folders():
    for written, name in (
        ("128", "t128"),
        ("t128", "t128"),
        ("22.2%", "s22.2"),
        ("640/2880", "s22.22"),
    ):
        config = resolved(composed("method=fastv", f"budget={written}"))
        assert config["budget"]["name"] == name and run_folder(config).parts[-2] == name
    counts = [resolved(composed("method=fastv", f"budget={b}")) for b in ("128", "t128", "128.0")]
    assert len({run_key(config) for config in counts}) == 1
    # the keys of earlier records hold this entry
    assert counts[0]["budget"] == {"name": "t128", "tokens": 128, "floor": None}
    share = resolved(composed("method=fastv", "budget=22.2%"))
    assert share["budget"] == {"name": "s22.2", "share": 0.222}
    node = {"_target_": "mustdrop.budget.Budget", "share": 0.222}
    assert share["prefill"]["keep"] == node
    assert built("method=fastv", "budget=22.2%").prefill == FastV(Budget(share=0.222), layer=0)


def test_a_model_whose_prompts_differ_in_size_resolves_each_prompt():
    chosen = ("model=llava15_7b", "model.vision_tokens=null", "budget=128")
    assert built("method=fastv", *chosen).prefill == FastV(Budget(tokens=128), layer=1)
    config = resolved(composed("method=fastv", *chosen))
    assert budget_floor(config) is None
    varied = ("method=fastv", "image=resized", *chosen[:2])
    assert resolved(composed(*varied, "budget=25%"))["image"]["ratio"] == 0.25
    with pytest.raises(ValueError, match="differ in size, so a count is no share"):
        resolved(composed("image=resized", "method=vanilla", *chosen))


def test_layers_keep_their_relative_depth():
    depths = {"llava15_7b": [2, 6, 10, 14], "llava15_13b": [2, 7, 12, 17], "pocket": [0, 2, 3, 5]}
    for model, layers in depths.items():
        cfg = composed("method=mustdrop", f"model={model}", "budget=none", *THRESHOLDS)
        assert resolved(cfg)["prefill"]["layers"] == layers
        assert "{at_depth:[2, 6, 10, 14],32}" in OmegaConf.to_yaml(cfg)
    assert composed("method=fastv", "model=llava15_13b").prefill.layer == 1


@pytest.mark.parametrize(
    ("method", "field", "layers"),
    [
        ("mustdrop", "layers", [2, 6, 10, 14]),
        ("mustdrop_official", "layers", [2, 6, 10, 14]),
        ("fastv", "layer", 1),
        ("text_topk", "layer", 1),
        ("sparsevlm", "layers", [2, 6, 15, 19]),
        ("sparsevlm_fixed", "layers", [2, 6, 15]),
        ("pyramiddrop", "layers", [1, 7, 15]),
    ],
)
@pytest.mark.parametrize("model", ["pocket_smol", "llava15_7b"])
def test_a_model_about_as_deep_gets_the_published_layers(method, field, layers, model):
    """SmolLM2 has 30 layers, LLaVA-1.5 has the 32 that the layers were published for."""
    cfg = composed(f"method={method}", f"model={model}", "budget=t128")
    for path in missing_fields(cfg):
        OmegaConf.update(cfg, path, 1.0e-3)
    value = cfg.prefill[field]
    assert (list(value) if OmegaConf.is_list(value) else value) == layers


def test_vanilla_is_one_run_whatever_the_budget():
    chosen = [resolved(composed("method=vanilla", f"budget={name}")) for name in ("t192", "none")]
    assert run_folder(chosen[0]) == run_folder(chosen[1])
    assert chosen[0]["budget"] is None


def test_what_drops_nothing_or_at_random_has_no_control_beside_it():
    def beside(*chosen):
        return resolved(composed(*chosen))["controls"]

    assert beside("method=fastv")["name"] == "schedule"
    for name in ("none", "schedule", "standard"):
        assert beside("method=vanilla", f"controls={name}") is None
        for layer in (-1, 3):
            assert beside("method=random", f"prefill.layer={layer}", f"controls={name}") is None
    # random tokens behind a merge are another method than random tokens
    assert beside("method=random", "vision=local_merge")["name"] == "schedule"
    arms = [
        run_folder(resolved(composed("method=random", f"controls={name}")))
        for name in ("none", "standard")
    ]
    assert arms[0] == arms[1]


def test_a_folder_tells_which_image_was_shown():
    own, wrong = (run_folder(resolved(composed(f"image={name}"))) for name in ("own", "wrong"))
    assert own.name.startswith("pocket_vqa-") and own.name.count("-") == 1
    assert wrong.name.startswith("pocket_vqa-wrong-") and own.parent == wrong.parent


def test_a_resized_picture_has_the_budgets_share_of_the_pixels():
    assert composed("image=resized", "budget=t64").image.ratio == 64 / 576
    assert composed("image=resized", "budget=none", "image.ratio=0.5").image.ratio == 0.5
    with pytest.raises(ValueError, match="no budget to compute it from"):
        resolved(composed("image=resized", "method=vanilla", "budget=none"))


def test_a_run_keeps_its_folder_while_it_asks_for_the_same():
    base = resolved(composed("method=fastv"))
    same = ("benchmark.limit=7", "device=cuda", "force=true", "threads=2", "workers=2", "traces=3")
    assert run_folder(resolved(composed("method=fastv", *same))) == run_folder(base)
    moved = run_folder(resolved(composed("method=fastv", "output_root=/elsewhere")))
    assert moved.relative_to("/elsewhere") == run_folder(base).relative_to("outputs")
    assert run_folder(base).parts[:-1] == ("outputs", "run", "pocket", "fastv", "t192")
    named = resolved(composed("method=fastv", "experiment=demo"))
    assert run_key(named) == run_key(base) or named["traces"] != base["traces"]
    others = (
        "prefill.keep=3", "seed=1", "model.dtype=bfloat16", "benchmark=pocket_vqa_easy",
        "image=wrong", "image=blank", "controls=none", "controls=standard",
    )  # fmt: skip
    keys = {run_key(resolved(composed("method=fastv", other))) for other in others}
    assert len(keys | {run_key(base)}) == 1 + len(others)


def test_a_later_field_at_its_default_leaves_a_run_its_folder():
    """The example runs were made before the fields were added."""
    (made,) = (CONF.parent / "notebooks/records/example/pocket/mustdrop/t192").iterdir()
    old = yaml.safe_load((made / "config.yaml").read_text())
    assert "edges" not in old["vision"] and "cls_attention" not in old["dropper"]
    new = resolved(composed("method=mustdrop", "budget=t192"))
    assert new["vision"]["edges"] == "refuse" and new["dropper"]["cls_attention"] == "cls"
    assert run_key(old) == run_key(new)
    assert alike(old, new) and variants([old, new]) == ["", ""]
    for change in ("vision.edges=keep", "dropper.cls_attention=received"):
        assert run_key(resolved(composed("method=mustdrop", "budget=t192", change))) != run_key(new)


def test_tuned_thresholds_know_how_patches_were_ranked():
    sentences = []
    for change in ("cls", "received"):
        cfg = composed("method=mustdrop", "budget=t64", f"dropper.cls_attention={change}")
        sentences.append(differing(cfg, resolved(cfg)))
    assert sentences[0] == []
    assert sentences[1] == [
        "cls_attention is received, and was cls when prefill.gamma and prefill.alpha were chosen"
    ]


def test_a_later_field_has_the_default_that_the_key_leaves_out():
    kinds = (TokenDropper, LocalMerge)
    defaults = {field.name: field.default for kind in kinds for field in dataclasses.fields(kind)}
    defaults["batch_window"] = composed().batch_window
    assert LATER_FIELDS.items() <= defaults.items()


def test_a_missing_budget_is_told_in_words():
    with pytest.raises(ValueError, match="choose one"):
        resolved(composed("method=fastv", "budget=none"))
