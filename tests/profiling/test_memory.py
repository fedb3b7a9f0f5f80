"""Bytes at the peak of a prefill are at most those of vanilla, at the width of the bench."""

import pytest
import torch
from allocated import allocated_peak
from omegaconf import OmegaConf
from tiny_methods import OF_IMAGES

from experiments import bench_models, bench_shapes
from experiments.profiling.plan import ProfilePlan, profiled_run
from experiments.profiling.subject import ProfileSubject
from mustdrop import TokenDropper
from mustdrop.prefill.random import Random
from mustdrop.presets.compose import composed
from mustdrop.profiling.device import Device
from mustdrop.vision.local_merge import LocalMerge

LAYERS = 16
KNOW_THE_ANSWER = ("oracle", "anti_oracle")
METHODS = [m for m in OF_IMAGES if m not in ("vanilla", *KNOW_THE_ANSWER)]


@pytest.fixture(scope="module")
def model():
    """LLaVA-1.5 of the bench with half of its layers and a small cache, which hides less."""
    with pytest.MonkeyPatch.context() as patch:
        fewer = {"num_hidden_layers": LAYERS, "num_key_value_heads": 1}
        patch.setattr(bench_models, "LLAMA", {**bench_models.LLAMA, **fewer})
        return bench_shapes.SHAPES["llava15"].model()


@pytest.fixture(scope="module")
def inputs():
    return bench_shapes.SHAPES["llava15"].prompt()


def peak(model, inputs, dropper=None):
    with (dropper or TokenDropper()).attach(model):
        return allocated_peak(lambda: model(**inputs, logits_to_keep=1, use_cache=True))


@pytest.fixture(scope="module")
def vanilla(model, inputs):
    return allocated_peak(lambda: model(**inputs, logits_to_keep=1, use_cache=True))


def dropper_of(method, model, inputs):
    """The method at 192 tokens; its thresholds are calibrated on the prompt."""
    if method == "mustdrop_merge":
        merging = LocalMerge(-1.0, score="mean")  # all windows, as those of noise are not alike
        return TokenDropper(vision=merging, vision_positions="compact")
    overrides = [f"method={method}", "budget=192", "model=llava15_7b", f"model.layers={LAYERS}"]
    cfg = composed(*overrides, "profile.weights=random", name="profile")
    plan = ProfilePlan.read(OmegaConf.to_container(cfg.profile))
    run = profiled_run(cfg, plan, overrides)
    return ProfileSubject(plan, run, model, None, LAYERS, Device("cpu")).method(inputs)[0]


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_a_method_needs_no_more_memory_than_vanilla(method, model, inputs, vanilla):
    assert peak(model, inputs, dropper_of(method, model, inputs)) <= 1.01 * vanilla


class AllPairs(Random):
    """Keeps random tokens after it has compared all pairs of tokens in every head."""

    def score(self, view):
        self_attention = torch.zeros(16, len(view), len(view))
        return super().score(view) + self_attention[0, 0, 0]


def test_a_tensor_of_all_pairs_of_tokens_is_seen(model, inputs, vanilla):
    kept = Random(keep=192, layer=2)
    assert peak(model, inputs, TokenDropper(prefill=kept)) <= 1.01 * vanilla
    assert peak(model, inputs, TokenDropper(prefill=AllPairs(keep=192, layer=2))) > 1.01 * vanilla


def test_memory_that_is_free_again_counts_once():
    def twice():
        for _ in range(2):
            torch.ones(1024, 256)

    assert 2**20 <= allocated_peak(twice) < 1.1 * 2**20
    assert allocated_peak(lambda: None) == 0
