"""Methods of the GPU script: presets, schedules, and the filter that keeps scheduled counts."""

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from fake_views import prefill_view
from transformers import AutoModelForImageTextToText

from experiments.gpu.cells import MODELS
from experiments.gpu.methods import SCHEDULES, TimedMethods, schedule
from experiments.gpu.models import TINY_PICTURE, config_of, weights_bytes, work_bytes
from mustdrop import presets
from mustdrop.key_tokens.cls_attention import ClsAttention
from mustdrop.prefill.dual_attention import DualAttention
from mustdrop.profiling.counted import Counted
from mustdrop.profiling.device import Device
from mustdrop.profiling.random_models import build_random
from mustdrop.profiling.random_prompts import RandomPrompts
from mustdrop.vision.local_merge import LocalMerge

ROOT = Path(__file__).parents[2]
CPU = Device("cpu")


def timed_methods(name: str, model) -> TimedMethods:
    return TimedMethods(model, RandomPrompts(model, 1, TINY_PICTURE).inputs(1))


def on_meta(name: str):
    """The full-size model without weights."""
    with torch.device("meta"):
        return AutoModelForImageTextToText.from_config(config_of(name, False), dtype=torch.bfloat16)


@pytest.mark.parametrize("method", ["fastv", "visionzip", "divprune", "sparsevlm", "random"])
def test_an_arm_is_the_preset_of_its_method(method):
    """At the counts that follow from the budget on LLaVA-1.5-7B."""
    dropper = timed_methods("llava15_7b", on_meta("llava15_7b")).get(f"{method} 192/576")
    name = "sparsevlm_fixed" if method == "sparsevlm" else method
    preset = presets.load(name, model="llava15_7b", budget=192)
    planned = replace(
        dropper,
        vision=None if dropper.vision is None else dropper.vision.plan(576, 23),
        prefill=None if dropper.prefill is None else dropper.prefill.plan(576, 32),
    )
    assert planned == preset


def test_mustdrop_is_its_preset_up_to_its_thresholds():
    model = build_random(config_of("llava15_7b", True), "cpu", torch.float32)
    dropper = timed_methods("llava15_7b", model).get("mustdrop 64/576")
    preset = presets.load("mustdrop", model="llava15_7b", budget=64, gamma=1e-3, alpha=1e-3)
    assert isinstance(dropper.vision, LocalMerge) and isinstance(preset.vision, LocalMerge)
    assert replace(dropper.vision, tau=preset.vision.tau) == preset.vision
    assert isinstance(dropper.prefill, Counted)
    assert replace(dropper.prefill.method, layers=preset.prefill.layers) == preset.prefill
    assert schedule("t64")["layers"] == list(preset.prefill.layers)
    assert dropper.decode == preset.decode
    assert isinstance(dropper.key_tokens, ClsAttention) and dropper.key_tokens.rule == "ratio"
    rules = ("positions", "vision_positions", "decode_positions", "cls_attention")
    assert all(getattr(dropper, rule) == getattr(preset, rule) for rule in rules)


@pytest.mark.parametrize("name", MODELS)
def test_mustdrop_meets_its_schedule_on_every_family(name):
    model = build_random(config_of(name, True), "cpu", torch.float32)
    methods = timed_methods(name, model)
    with methods.get("mustdrop 192/576").attach(model) as run, torch.inference_mode():
        model(**methods.search.inputs, logits_to_keep=1)
    (ledger,) = run.ledgers
    entered, off_grid = ledger.vision_per_layer(), int((ledger.cells < 0).sum())
    assert entered[0] - off_grid == pytest.approx(304 / 576 * methods.cells, rel=0.15)
    assert entered[-1] == round(176 / 576 * methods.cells)
    assert not any(later > earlier for earlier, later in pairwise(entered))


@pytest.mark.parametrize("budget", ["t192", "t128", "t64"])
def test_the_schedule_has_the_shape_of_the_record_that_it_names(budget):
    folder = ROOT / "notebooks/records/example/pocket/mustdrop" / budget
    (path,) = folder.glob("*/samples.jsonl")
    samples = [json.loads(line) for line in path.read_text().splitlines()]
    layers = [0, 1, 3, 4, 6]  # the input, and behind each drop
    measured = [sum(one["vision_tokens"][at] for one in samples) / len(samples) for at in layers]
    plan = schedule(budget)
    assert 576 - plan["merged"] == pytest.approx(measured[0], abs=4)
    factor = plan["after"][-1] / measured[-1]
    for count, mean in zip(plan["after"], measured[1:], strict=True):
        assert count == pytest.approx(factor * mean, rel=0.01, abs=1)
    left = [576 - plan["merged"], *plan["after"]]
    ends = [0, *(layer + 1 for layer in plan["layers"]), 32]
    spans = [later - sooner for sooner, later in pairwise(ends)]
    executed = sum(n * span for n, span in zip(left, spans, strict=True)) / 32
    assert executed == pytest.approx(int(budget[1:]), rel=0.01)
    assert "llava15_7b mustdrop: " in " ".join(json.loads(SCHEDULES.read_text())["origin"])


def test_a_scheduled_filter_keeps_the_best_of_its_custom_scores_and_every_key_token():
    attention = torch.rand(2, 5, 20)
    protected = torch.zeros(20, dtype=torch.bool)
    protected[3] = True
    logged: list[torch.Tensor] = []
    view = prefill_view(
        20, layer=6, protected=protected, protected_count=1, log_score=logged.append,
        attention=lambda rows, of="this": attention,
    )  # fmt: skip
    strategy = Counted(DualAttention(0.001, 0.001, [2, 6]), [9, 7])
    kept = strategy.reduce(view).keep.tolist()
    share = attention.mean(0).sum(0)
    share[3] = torch.inf
    assert kept == sorted(share.topk(7).indices.tolist())
    assert strategy.layers == (2, 6)


@pytest.mark.parametrize("name", MODELS)
def test_the_room_that_a_model_needs_is_estimated(name):
    model = on_meta(name)
    weights = sum(weight.numel() for weight in model.parameters()) * 2
    assert weights_bytes(config_of(name, False), 2) == pytest.approx(weights, rel=0.1)
    cache = {"llava15_7b": 2 * 32 * 4096 * 2, "llava_next_7b": 2 * 32 * 4096 * 2}
    assert work_bytes(config_of(name, False), 1000, 2) > 1000 * cache.get(name, 2 * 28 * 512 * 2)
