"""What a replay foretells without running the model is what the model does."""

import random
from dataclasses import dataclass, replace
from statistics import fmean
from typing import final

import pytest
import torch
from models import prompt, tiny_llava

from mustdrop import TokenDropper
from mustdrop.calibration.observe import observe, unset
from mustdrop.calibration.threshold import executed, with_field
from mustdrop.key_tokens.cls_attention import ClsAttention
from mustdrop.prefill.dual_attention import DualAttention
from mustdrop.prefill.fastv import FastV
from mustdrop.reduction import Reduction
from mustdrop.thresholds import ThresholdPrefill, ThresholdVision
from mustdrop.vision.cls_topk import ClsTopK
from mustdrop.vision.local_merge import LocalMerge

ONE = TokenDropper(
    LocalMerge(0.5, score="mean"),
    ClsAttention("outlier", mu=0.5),
    DualAttention(0.05, 0.1, layers=[2]),
)
SEVERAL = replace(ONE, prefill=DualAttention(0.05, 0.1, layers=[1, 3]))
FIELDS = {
    "prefill.gamma": (1e-3, 0.2),
    "prefill.alpha": (2e-2, 0.3),
    "key_tokens.mu": (-2.0, 5.0),
    "vision.tau": (0.2, 1.0),
}


@pytest.fixture(scope="module")
def model():
    return tiny_llava()


@pytest.fixture(scope="module")
def batches(model):
    prompts = [prompt(model, seed=seed, flat=0.2 * seed) for seed in range(4)]
    return [
        {name: torch.cat([each[name] for each in pair]) for name in pair[0]}
        for pair in (prompts[:2], prompts[2:])
    ]


def draws(place, n=4):
    low, high = FIELDS[place]
    drawn = random.Random(place)
    return [drawn.uniform(low, high) for _ in range(n)]


def foretold_and_done(model, batches, dropper, place, values):
    seen = observe(model, dropper, place, batches)
    assert seen is not None
    for value in values:
        asked = with_field(dropper, place, value)
        yield seen.range(asked), fmean(executed(model, asked, batches))


@pytest.mark.parametrize(
    ("place", "min_keep"),
    [("prefill.gamma", 0), ("prefill.gamma", 12), ("prefill.alpha", 0), ("key_tokens.mu", 0)],
)
def test_one_dropping_layer_is_known_exactly_at_any_threshold(model, batches, place, min_keep):
    dropper = replace(ONE, prefill=replace(ONE.prefill, min_keep=min_keep))
    pairs = list(foretold_and_done(model, batches, dropper, place, draws(place)))
    for range_, done in pairs:
        assert range_.low == range_.likely == range_.high == done
    if not min_keep:
        assert len({done for _, done in pairs}) > 2, "this case proves nothing"


@pytest.mark.parametrize("crops", ["own", "fewest"])
def test_merging_alone_is_known_exactly_at_any_threshold(model, batches, crops):
    dropper = TokenDropper(LocalMerge(0.5, score="mean", crops=crops))
    values = [0.0, 0.12, 0.15, 0.2, 0.5, 1.01]
    pairs = list(foretold_and_done(model, batches, dropper, "vision.tau", values))
    for range_, done in pairs:
        assert range_.low == range_.likely == range_.high == done
    assert len({done for _, done in pairs}) > 2, "this case proves nothing"


def test_crops_that_keep_step_are_counted_by_the_least_alike(model):
    two = [prompt(model, images=2, seed=1, flat=0.6)]
    two[0]["pixel_values"][1] = prompt(model, seed=5)["pixel_values"][0]
    own = LocalMerge(0.5, score="mean")
    found = {}
    for strategy in (own, replace(own, crops="fewest")):
        dropper = TokenDropper(strategy)
        ((range_, done),) = foretold_and_done(model, two, dropper, "vision.tau", [0.5])
        assert range_.high == done
        found[strategy.crops] = done
    assert found["own"] < found["fewest"]


@pytest.mark.parametrize("place", list(FIELDS))
def test_several_layers_stay_within_their_bounds(model, batches, place):
    ranges = []
    for range_, done in foretold_and_done(model, batches, SEVERAL, place, draws(place)):
        assert range_.low <= done <= range_.high
        assert range_.low <= range_.likely <= range_.high
        ranges.append(range_)
    assert any(range_.low < range_.high for range_ in ranges), "this case proves nothing"


def test_later_layers_are_not_foretold_exactly(model, batches):
    """The control: were it so, bounds would be idle and the exact case would prove nothing."""
    pairs = list(
        foretold_and_done(model, batches, SEVERAL, "prefill.gamma", draws("prefill.gamma"))
    )
    assert any(range_.likely != done for range_, done in pairs)


def test_a_watched_pass_does_not_depend_on_the_threshold(model, batches):
    for place, (low, high) in FIELDS.items():
        ends = [with_field(SEVERAL, place, value) for value in (low, high)]
        assert unset(ends[0], place) == unset(ends[1], place)
        asked = with_field(SEVERAL, place, (low + high) / 2)
        first, second = (observe(model, end, place, batches).range(asked) for end in ends)
        assert first == second


@final
@dataclass(frozen=True)
class LoudTokens(ThresholdPrefill):
    """A strategy that only this file knows: drop tokens whose hidden state is small."""

    least: float
    layers: tuple[int, ...] = (1,)

    @property
    def thresholds(self):
        return {"least": (0.0, 100.0)}

    def observe(self, view):
        return view.hidden.float().norm(dim=-1)[None]

    def stays(self, observed, protected):
        return (observed[0] >= self.least) | protected


@final
@dataclass(frozen=True)
class QuietPatches(ThresholdVision):
    """A strategy that only this file knows: drop patches that [CLS] hardly attends to."""

    least: float
    places = ("features",)
    cls_attention_blocks = (-1,)

    @property
    def thresholds(self):
        return {"least": (0.0, 1.0)}

    def observe(self, view):
        return view.cls_attention(-1).float().mean(0)

    def remaining(self, observed, entered):
        return int((observed >= self.least).sum())

    def reduce(self, view):
        return Reduction((self.observe(view) >= self.least).nonzero().flatten())


@pytest.mark.parametrize(
    ("dropper", "place"),
    [
        (TokenDropper(prefill=LoudTokens(1.0)), "prefill.least"),
        (TokenDropper(key_tokens=ClsAttention(), prefill=LoudTokens(1.0)), "prefill.least"),
        (TokenDropper(vision=QuietPatches(0.01)), "vision.least"),
    ],
)
def test_a_users_own_thresholds_are_replayed_too(model, batches, dropper, place):
    seen = observe(model, dropper, place, batches)
    assert seen is not None
    values = torch.cat([
        values.flatten()
        for each in seen.prompts
        for values in (*(x.values for x in each.layers.values()), *(v for _, v in each.encoded))
    ])  # fmt: skip
    done = set()
    for share in (0.1, 0.5, 0.9):
        asked = with_field(dropper, place, float(values.quantile(share)))
        foretold = seen.range(asked)
        measured = fmean(executed(model, asked, batches))
        assert foretold.low == foretold.likely == foretold.high == pytest.approx(measured)
        done.add(measured)
    assert len(done) == 3, "this case proves nothing"


def test_what_does_not_follow_is_not_foretold(model, batches):
    for dropper, place in (
        (TokenDropper(prefill=FastV(keep=3)), "prefill.keep"),
        (TokenDropper(LocalMerge(0.5, score="mean"), ClsAttention()), "key_tokens.mu"),
        (replace(ONE, vision=ClsTopK(keep=12)), "vision.tau"),
    ):
        assert observe(model, dropper, place, batches) is None


def test_key_tokens_among_what_stage_1_left_are_known_exactly(model, batches):
    dropper = replace(ONE, vision=ClsTopK(keep=12))
    pairs = list(
        foretold_and_done(model, batches, dropper, "key_tokens.mu", draws("key_tokens.mu"))
    )
    for range_, done in pairs:
        assert range_.low == range_.likely == range_.high == done
    assert len({done for _, done in pairs}) > 1, "this case proves nothing"


def test_tokens_dropped_before_the_decoder_are_known_too(model, batches):
    dropper = replace(ONE, vision=ClsTopK(keep=12))
    for range_, done in foretold_and_done(model, batches, dropper, "prefill.gamma", [0.1, 0.2]):
        assert range_.low == range_.high == done < 12


def test_a_prompt_without_an_image_counts_as_nothing(model, batches):
    texts = {"input_ids": torch.randint(6, 97, (1, 9)), "attention_mask": torch.ones(1, 9).long()}
    with_text = [*batches, texts]
    for range_, done in foretold_and_done(model, with_text, ONE, "prefill.gamma", [0.02]):
        assert range_.low == range_.high == done
