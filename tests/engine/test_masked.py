"""Dropping equals masking, and dropping nothing changes nothing."""

from dataclasses import replace

import pytest
import torch
from droppers import DROPPERS
from models import batch, greedy, prompt, tiny_llava
from versions import ATTENTION

from mustdrop import DecodeStrategy, PrefillStrategy, Reduction, TokenDropper, VisionStrategy
from mustdrop.decode.output_aware import OutputAware
from mustdrop.key_tokens.cls_attention import ClsAttention
from mustdrop.masked import masked_logits, relative_error
from mustdrop.prefill.dual_attention import DualAttention
from mustdrop.prefill.fastv import FastV
from mustdrop.vision.average_pool import AveragePool
from mustdrop.vision.divprune import DivPrune
from mustdrop.vision.local_merge import LocalMerge
from mustdrop.vision.tome import ToMe
from mustdrop.vision.visionzip import VisionZip
from mustdrop.vision.vispruner import VisPruner

TOLERANCE = 1e-5
CONTROL = 1e-3  # a broken record must move the logits at least this much


@pytest.fixture(scope="module", params=ATTENTION)
def model(request):
    return tiny_llava(request.param)


def prompts(model, ragged: bool) -> dict[str, torch.Tensor]:
    """One prompt, or three of other lengths, one of them with two images."""
    first = prompt(model, flat=0.5)
    if not ragged:
        return first
    second = prompt(model, before=2, after=12, seed=3, flat=1.0)
    third = prompt(model, before=9, after=4, images=2, seed=4, flat=0.2)
    return batch(first, second, third)


@pytest.mark.parametrize("ragged", [False, True], ids=["one", "ragged"])
@pytest.mark.parametrize("name", DROPPERS)
def test_dropping_equals_masking(model, name, ragged):
    dropper, inputs = DROPPERS[name], prompts(model, ragged)
    with dropper.attach(model) as run:
        tokens, logits = greedy(model, inputs)
    dropped = False
    for number, ledger in enumerate(run.ledgers):
        expected = masked_logits(model, run, inputs, tokens, number)
        assert relative_error(logits[number], expected) <= TOLERANCE
        assert torch.equal(tokens[number], expected.argmax(-1))
        dropped |= ledger.counts().executed_average < int(ledger.vision.sum())
    assert dropped, "this case proves nothing: no token was dropped"


def broken(ledger, what: str) -> None:
    """Falsify a record in one place."""
    last = ledger.depth - 1
    if what == "alive":
        alive = ledger.alive[last]
        victim = int(ledger.vision[alive].nonzero()[0])
        ledger.alive[last] = torch.cat([alive[:victim], alive[victim + 1 :]])
    elif what == "cached":
        cached = ledger.cached[last]
        victim = int(ledger.vision[cached].nonzero()[0])
        ledger.cached[last] = torch.cat([cached[:victim], cached[victim + 1 :]])
    elif what == "early":
        ledger.alive[2] = ledger.alive[last]


@pytest.mark.parametrize("what", ["alive", "cached", "early"])
def test_a_false_record_fails_the_oracle(model, what):
    dropper, inputs = DROPPERS["fastv_later"], prompts(model, ragged=False)
    with dropper.attach(model) as run:
        tokens, logits = greedy(model, inputs)
    if what == "early":
        run.ledgers[0].alive[1] = run.ledgers[0].alive[2]
    else:
        broken(run.ledgers[0], what)
    expected = masked_logits(model, run, inputs, tokens)
    assert relative_error(logits[0], expected) > CONTROL


@pytest.mark.parametrize(
    "change",
    [{"positions": "original"}, {"vision_positions": "original"}, {"decode_positions": "continue"}],
    ids=lambda change: next(iter(change)),
)
def test_every_position_rule_matters(model, change):
    dropper, inputs = DROPPERS["mustdrop_cache_length"], prompts(model, ragged=False)
    with dropper.attach(model) as run:
        tokens, logits = greedy(model, inputs)
    run.stages = replace(run.stages, **change)
    expected = masked_logits(model, run, inputs, tokens)
    assert relative_error(logits[0], expected) > CONTROL


def test_forgetting_what_was_merged_fails_the_oracle(model):
    dropper, inputs = DROPPERS["local_merge"], prompts(model, ragged=False)
    with dropper.attach(model) as run:
        tokens, logits = greedy(model, inputs)
    run.images[0].steps[0] = Reduction(run.images[0].steps[0].keep)
    expected = masked_logits(model, run, inputs, tokens)
    assert relative_error(logits[0], expected) > CONTROL


@pytest.mark.parametrize("name", ["all_stages", "tome", "visionzip", "sparsevlm", "average_pool"])
def test_wrong_mixing_fails_the_oracle(model, name, monkeypatch):
    """The masked model mixes by code of its own, so a fault in the engine's does not hide there."""
    mixed = Reduction.__call__

    def wrong(self, x, cls=None):
        return mixed(self, x, cls) * (1.01 if self.mix is not None else 1.0)

    inputs = prompts(model, ragged=False)
    monkeypatch.setattr(Reduction, "__call__", wrong)
    with DROPPERS[name].attach(model) as run:
        tokens, logits = greedy(model, inputs)
    expected = masked_logits(model, run, inputs, tokens)
    assert relative_error(logits[0], expected) > CONTROL


class MergeHalves(PrefillStrategy):
    """Averages neighbours: merging inside the prefill, as SparseVLM's recycling will."""

    layers = (1,)

    def reduce(self, view) -> Reduction:
        pairs = len(view) // 2
        mix = torch.zeros(pairs, len(view))
        index = torch.arange(pairs)
        mix[index, 2 * index] = 0.25
        mix[index, 2 * index + 1] = 0.75
        return Reduction(2 * index, mix)


@pytest.mark.parametrize("ragged", [False, True], ids=["one", "ragged"])
def test_merging_between_layers_equals_masking(model, ragged):
    dropper = TokenDropper(prefill=MergeHalves(), decode=OutputAware(0))
    inputs = prompts(model, ragged)
    with dropper.attach(model) as run:
        tokens, logits = greedy(model, inputs)
    for number in range(len(tokens)):
        expected = masked_logits(model, run, inputs, tokens, number)
        assert relative_error(logits[number], expected) <= TOLERANCE


class MergeInside(VisionStrategy):
    """Averages neighbours between attention and MLP, up to the last block of the features."""

    places, inside_block, proportional_attention = (0, 2), True, True
    query_key_blocks = places

    def reduce(self, view) -> Reduction:
        query, key = view.queries_keys(view.block)
        tokens = len(view.hidden)
        assert query.shape == key.shape and query.shape[1] == tokens + view.has_cls
        pairs = tokens // 3  # two of three merge, the rest is left out of order
        index = torch.arange(pairs)
        keep = torch.cat([2 * index, torch.arange(2 * pairs, tokens)]).flip(0)
        mix = torch.zeros(tokens - pairs, tokens)
        mix[torch.arange(len(keep)), keep] = 1.0
        merged = torch.arange(len(keep) - pairs, len(keep))
        first, second = keep[merged], keep[merged] + 1
        total = view.sizes[first] + view.sizes[second]
        mix[merged, first], mix[merged, second] = (view.sizes[x] / total for x in (first, second))
        sizes = view.sizes[keep].clone()
        sizes[merged] = total
        return Reduction(keep, mix, sizes)


class SplitsInside(VisionStrategy):
    """Puts the first token into two survivors, between attention and MLP."""

    places, inside_block = (0,), True

    def reduce(self, view) -> Reduction:
        mix = torch.eye(len(view.sizes))[:2]
        mix[1, :2] = 0.5
        return Reduction(torch.arange(2), mix)


def test_a_token_that_is_split_inside_a_block_is_refused(model):
    """The MLP's output for it could not be put back."""
    with (
        TokenDropper(SplitsInside()).attach(model),
        pytest.raises(ValueError, match="the strategy splits tokens between several"),
    ):
        greedy(model, prompts(model, ragged=False))


class CarriesCls(VisionStrategy):
    """Lets [CLS] ride in a dropped token's place, and adds a token that is no average."""

    places, normalised = ("features",), False

    def reduce(self, view) -> Reduction:
        keep = torch.tensor([4, 9, 11, 2])
        mix = torch.zeros(4, len(view.hidden))
        mix[1, 9] = mix[2, 11] = 1.0
        mix[3, :6] = 0.5
        return Reduction(keep, mix, cls=torch.tensor([1.0, 0.0, 0.25, 0.0]))


@pytest.mark.parametrize("ragged", [False, True], ids=["one", "ragged"])
@pytest.mark.parametrize("vision", [MergeInside(), CarriesCls()], ids=["inside", "cls"])
@pytest.mark.parametrize("positions", ["original", "compact"])
def test_merging_inside_a_block_and_mixing_cls_in_equal_masking(model, vision, positions, ragged):
    dropper = TokenDropper(
        vision=vision, key_tokens=ClsAttention("ratio", ratio=0.2), prefill=FastV(3, 2),
        vision_positions=positions,
    )  # fmt: skip
    inputs = prompts(model, ragged)
    with dropper.attach(model) as run:
        tokens, logits = greedy(model, inputs)
    for number in range(len(tokens)):
        expected = masked_logits(model, run, inputs, tokens, number)
        assert relative_error(logits[number], expected) <= TOLERANCE
    if isinstance(vision, CarriesCls):
        assert run.ledgers[0].sources[0].cls is not None
        run.images[0].steps["features"] = replace(run.images[0].steps["features"], cls=None)
    else:  # forgetting what the sizes weigh
        run.images[0].steps[0] = replace(run.images[0].steps[0], sizes=None)
    expected = masked_logits(model, run, inputs, tokens)
    assert relative_error(logits[0], expected) > CONTROL


@pytest.mark.parametrize("attention", ATTENTION)
@pytest.mark.parametrize("name", ["tome", "divprune", "average_pool", "local_merge", "sparsevlm"])
def test_an_encoder_without_cls(name, attention):
    """SigLIP's: what asks for no [CLS] works there as it does on CLIP."""
    bare = tiny_llava(attention, cls=False)
    inputs = prompts(bare, ragged=True)
    with DROPPERS[name].attach(bare) as run:
        tokens, logits = greedy(bare, inputs)
    for number, ledger in enumerate(run.ledgers):
        expected = masked_logits(bare, run, inputs, tokens, number)
        assert relative_error(logits[number], expected) <= TOLERANCE
        assert ledger.counts().executed_average < int(ledger.vision.sum()) or number


@pytest.mark.parametrize(
    "name", ["visionzip", "prumerge_plus", "prumerge", "cls_topk", "all_stages"]
)
def test_cls_attention_is_refused_where_there_is_none(name):
    bare = tiny_llava(cls=False)
    with pytest.raises(ValueError, match="this encoder has no"), DROPPERS[name].attach(bare):
        pass


class KeepRecent(DecodeStrategy):
    """Cuts the cache where nothing was dropped before, by another count in every layer."""

    def keep(self, view):
        return torch.arange(len(view.positions)) >= 5 * view.layer


@pytest.mark.parametrize("ragged", [False, True], ids=["one", "ragged"])
def test_cutting_the_cache_alone_equals_masking(model, ragged):
    inputs = prompts(model, ragged)
    with TokenDropper(decode=KeepRecent()).attach(model) as run:
        tokens, logits = greedy(model, inputs)
    for number, ledger in enumerate(run.ledgers):
        expected = masked_logits(model, run, inputs, tokens, number)
        assert relative_error(logits[number], expected) <= TOLERANCE
        vision = int(ledger.vision.sum())
        assert ledger.resident_per_layer() == [max(0, vision - 5 * layer) for layer in range(6)]


KEEPS_ALL = {
    "no stage": TokenDropper(),
    "fastv": TokenDropper(prefill=FastV(keep=10_000, layer=1)),
    "dual": TokenDropper(
        prefill=DualAttention(0.0, 0.0, layers=[1, 2]), decode=OutputAware(0), positions="compact"
    ),
    "merge": TokenDropper(vision=LocalMerge(2.0, score="mean"), vision_positions="compact"),
    "tome": TokenDropper(vision=ToMe([0, 0, 0]), vision_positions="compact"),
    "visionzip": TokenDropper(vision=VisionZip(10_000, 0), vision_positions="compact"),
    "vispruner": TokenDropper(vision=VisPruner(10_000), vision_positions="compact"),
    "divprune": TokenDropper(vision=DivPrune(10_000), vision_positions="compact"),
    "average_pool": TokenDropper(vision=AveragePool(10_000), vision_positions="compact"),
}


@pytest.mark.parametrize("ragged", [False, True], ids=["one", "ragged"])
@pytest.mark.parametrize("name", KEEPS_ALL)
def test_dropping_nothing_changes_nothing(model, name, ragged):
    inputs = prompts(model, ragged)
    plain = greedy(model, inputs)
    with KEEPS_ALL[name].attach(model) as run:
        held = greedy(model, inputs)
    assert torch.equal(plain[0], held[0])
    assert torch.equal(plain[1], held[1])  # to the bit
    for ledger in run.ledgers:
        assert ledger.counts().executed_average == int(ledger.vision.sum())


@pytest.mark.parametrize("name", DROPPERS)
def test_a_prompt_does_not_depend_on_its_neighbours(model, name):
    alone = [
        prompt(model, flat=0.5),
        prompt(model, before=2, after=12, seed=3, flat=1.0),
        prompt(model, before=9, after=4, images=2, seed=4, flat=0.2),
    ]
    with DROPPERS[name].attach(model) as run:
        tokens, logits = greedy(model, batch(*alone))
        together = run.ledgers
        for number, single in enumerate(alone):
            own_tokens, own_logits = greedy(model, single)
            assert torch.equal(tokens[number], own_tokens[0])
            assert relative_error(logits[number], own_logits[0]) <= TOLERANCE
            for layer, alive in run.ledgers[0].alive.items():
                assert torch.equal(together[number].alive[layer], alive)
                assert torch.equal(together[number].cached[layer], run.ledgers[0].cached[layer])


def test_left_padding_alone_changes_nothing(model):
    inputs = prompts(model, ragged=False)
    pad = torch.zeros(1, 5, dtype=torch.long)
    padded = {
        **inputs,
        "input_ids": torch.cat([pad, inputs["input_ids"]], 1),
        "attention_mask": torch.cat([pad, inputs["attention_mask"]], 1),
    }
    with DROPPERS["all_stages"].attach(model) as run:
        tokens, logits = greedy(model, inputs)
        alive = run.ledgers[0].alive
        padded_tokens, padded_logits = greedy(model, padded)
    assert torch.equal(tokens, padded_tokens)
    assert relative_error(padded_logits, logits) <= TOLERANCE
    assert all(torch.equal(alive[layer], run.ledgers[0].alive[layer]) for layer in alive)


def test_text_and_image_prompts_share_a_batch(model):
    picture = prompt(model, flat=0.5)
    text = {
        "input_ids": torch.randint(6, 97, (1, 9)),
        "attention_mask": torch.ones(1, 9, dtype=torch.long),
        "pixel_values": picture["pixel_values"][:0],
    }
    with DROPPERS["all_stages"].attach(model) as run:
        tokens, _ = greedy(model, batch(picture, text))
        assert run.ledgers[1].vision_per_layer() == [0] * 6
        own, _ = greedy(model, picture)
    plain, _ = greedy(model, {k: v for k, v in text.items() if k != "pixel_values"})
    assert torch.equal(tokens[0], own[0])
    assert torch.equal(tokens[1], plain[0])


def test_a_manual_decoding_loop_without_positions_is_right(model):
    inputs = prompts(model, ragged=False)
    dropper = DROPPERS["all_stages"]
    with torch.inference_mode(), dropper.attach(model):
        tokens, _ = greedy(model, inputs, steps=4)
        out = model(**inputs)
        found = [out.logits[0, -1].argmax()]
        for _ in range(3):
            out = model(input_ids=found[-1].view(1, 1), past_key_values=out.past_key_values)
            found.append(out.logits[0, -1].argmax())
    assert torch.equal(torch.stack(found), tokens[0])


def test_positional_arguments_mean_the_same(model):
    inputs = prompts(model, ragged=False)
    dropper = DROPPERS["mustdrop_official"]
    with torch.inference_mode(), dropper.attach(model):
        named = model(**inputs).logits
        bare = model(inputs["input_ids"], inputs["pixel_values"]).logits
    assert relative_error(bare, named) <= TOLERANCE
