"""Costs in closed form equal what a counter counts, and the engine waits for the device rarely."""

from dataclasses import replace

import pytest
import torch
from droppers import DROPPERS, mustdrop
from models import batch, prompt, tiny_llava
from torch.utils.flop_counter import FlopCounterMode
from transformers import DynamicCache
from watch import Watch, watched

from mustdrop import TokenDropper, cost
from mustdrop.decode.output_aware import OutputAware
from mustdrop.evaluation.metrics import CostMeter
from mustdrop.ledger import TokenLedger
from mustdrop.prefill.dual_attention import DualAttention
from mustdrop.profiling.counting import UNSEEN
from mustdrop.reduction import Reduction
from mustdrop.strategy import PrefillStrategy, PrefillView

SHAPE = cost.DecoderShape(hidden=32, query=32, kv=16, ffn=64, vocab=97, bytes_per_value=4)
ENCODER = cost.EncoderShape(
    hidden=24, ffn=48, blocks=4, extra=1, patch_values=48, projection=24 * 32 + 32 * 32
)


def counted(model, inputs) -> tuple[int, int]:
    """FLOPs that torch counts in (encoder and projector, decoder and head over the last token).

    Eager attention, since not every torch counts sdpa on the CPU.
    """
    with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=UNSEEN) as counter:
        model(**inputs, logits_to_keep=1)
    flops = {name: sum(ops.values()) for name, ops in counter.flop_counts.items()}
    vision = sum(
        value
        for name, value in flops.items()
        if name.endswith(("model.vision_tower", "model.multi_modal_projector"))
    )
    return vision, flops["Global"] - vision


@pytest.fixture(scope="module")
def untouched() -> dict[str, int]:
    """What the prompt below costs a model that nothing is attached to, by the counter."""
    model = tiny_llava("eager")
    vision, decoder = counted(model, prompt(model, flat=0.5))
    tokens = prompt(model)["input_ids"].shape[1]
    return {
        "vanilla_encoder_macs": vision // 2,
        "vanilla_macs": decoder // 2,
        "vanilla_kv_bytes": 6 * 2 * tokens * 16 * 4,
    }


@pytest.mark.parametrize("name", DROPPERS)
def test_closed_forms_equal_the_counter_to_the_integer(name, untouched):
    model = tiny_llava("eager")
    inputs = prompt(model, flat=0.5)
    dropper = DROPPERS[name]
    with dropper.attach(model) as run:
        vision, decoder = counted(model, inputs)
    ledger = run.ledgers[0]
    prefill = cost.flops(cost.prefill_macs(ledger, SHAPE))
    ours = cost.flops(cost.encoder_macs(ledger, ENCODER))
    assert vision + decoder == ours + prefill
    if dropper.vision is None or "projected" not in dropper.vision.places:
        assert vision == ours  # behind the projector, the counter takes it for the decoder's
    # what the prompt costs with nothing dropped is no method's own number
    line = CostMeter.from_model(model).measure(ledger, None)
    assert {key: line[key] for key in untouched} == untouched
    assert cost.flops(line["prefill_macs"] + line["encoder_macs"]) == ours + prefill


def test_vanilla_costs_are_those_that_the_run_without_stages_has():
    model = tiny_llava("eager")
    with TokenDropper().attach(model) as run, torch.inference_mode():
        model(**prompt(model, images=2))
    line = CostMeter.from_model(model).measure(run.ledgers[0], None)
    assert line["vanilla_macs"] == line["prefill_macs"]
    assert line["vanilla_encoder_macs"] == line["encoder_macs"]
    assert line["vanilla_kv_bytes"] == line["kv_bytes"]


class TwoLooks(PrefillStrategy):
    """Looks at the last row, then at all rows, then at what is received, after one layer."""

    layers = (2,)

    def reduce(self, view: PrefillView) -> Reduction:
        looks = [view.attention(rows=rows)[:, -1].mean(0) for rows in ("last", "text")]
        return view.top(sum([*looks, view.received_attention()]), 9)


def test_a_layer_that_is_read_more_than_once_costs_each_time():
    model = tiny_llava("eager")
    with TokenDropper(prefill=TwoLooks()).attach(model) as run:
        _, decoder = counted(model, prompt(model))
    ledger = run.ledgers[0]
    assert ledger.scored_rows == {2: 1 + 7 + ledger.seq_len}
    assert decoder == cost.flops(cost.prefill_macs(ledger, SHAPE))


def test_a_pooling_head_looks_at_the_cls_as_well():
    pooled = replace(ENCODER, pooled=True)
    seen = {3: 10, 4: 5}
    head = pooled.image_macs((6, 6), seen) - ENCODER.image_macs((6, 6), seen)
    assert head == ENCODER.head_macs(10 + 1)


def test_kv_bytes_are_the_bytes_in_the_cache():
    model = tiny_llava()
    cache = DynamicCache()
    with mustdrop().attach(model) as run, torch.inference_mode():
        model(**prompt(model, flat=0.5), past_key_values=cache)
    held = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    assert cost.kv_bytes(run.ledgers[0], SHAPE) == held


def seven_b(vision: int) -> TokenLedger:
    """A prompt of vision tokens alone, on the 32 layers of LLaVA-1.5-7B."""
    everything = torch.arange(vision)
    ledger = TokenLedger(
        vision, torch.ones(vision, dtype=torch.bool), torch.zeros(vision, dtype=torch.bool)
    )
    ledger.alive = ledger.cached = dict.fromkeys(range(32), everything)
    return ledger


def test_the_7b_decoder_costs_what_was_published():
    shape = cost.DecoderShape(4096, 4096, 4096, 11008, 32064)
    layers = sum(shape.layer_macs(576) for _ in range(32))
    assert cost.flops(layers) == pytest.approx(7.634e12, rel=1e-3)
    assert cost.sparsevlm_macs([576] * 32, shape) == layers
    assert cost.kv_bytes(seven_b(576), shape) == pytest.approx(302.0e6, rel=1e-3)


@pytest.mark.parametrize(("tokens", "megabytes"), [(576, 302.4), (440, 231.0), (64, 33.6)])
def test_paper_megabytes_are_those_of_table_3(tokens, megabytes):
    assert cost.paper_mb(seven_b(tokens)) == pytest.approx(megabytes, abs=0.05)


def test_scoring_costs_under_two_percent_of_the_prefill():
    """Four scoring layers at the size of LLaVA-1.5-7B: 35 + 576 + 30 tokens, nothing dropped."""
    shape = cost.DecoderShape(4096, 4096, 4096, 11008, 32064)
    ledger = seven_b(641)
    ledger.scored_rows = {2: 30, 6: 30, 10: 30, 14: 30}
    share = cost.scoring_macs(ledger, shape) / cost.prefill_macs(ledger, shape)
    assert 0 < share < 0.02


@pytest.mark.parametrize("name", DROPPERS)
def test_a_prefill_waits_for_the_device_at_most_once_per_drop(name):
    model = tiny_llava()
    inputs = prompt(model, flat=0.5)
    del inputs["attention_mask"]  # as generate does where all ones
    dropper = DROPPERS[name]
    own = watched(model, inputs, None).waits
    waits = watched(model, inputs, dropper).waits - own
    drops = len(dropper.prefill.layers) if dropper.prefill else 0
    drops += len(dropper.vision.places) if dropper.vision else 0
    drops += bool(dropper.decode)
    drops += hasattr(dropper.prefill, "seed")  # draws are keyed by the prompt's own bytes
    assert waits.total() <= drops, waits


def test_the_watch_sees_what_it_must():
    x = torch.rand(5)
    with Watch() as watch:
        x[x > 0.5]
        (x > 0.5).nonzero()
        float(x[0])
        torch.equal(x, x)
        x[torch.tensor([0, 1])]
    assert watch.waits["boolean index"] + watch.waits["nonzero"] >= 2
    assert watch.waits["_local_scalar_dense"] >= 1


def test_attention_maps_never_exist():
    model = tiny_llava(layers=8, heads=4, kv_heads=4)
    inputs = prompt(model, after=7)
    tokens = inputs["input_ids"].shape[1]
    dropper = TokenDropper(
        prefill=DualAttention(0.01, 0.05, layers=[1, 2, 3, 4]), decode=OutputAware(0)
    )
    watch = watched(model, inputs, dropper)
    maps = [shape for shape in watch.maps if shape[-2:] == (tokens, tokens) and shape[0] > 1]
    assert not maps
    assert any(shape[-2:] == (7, tokens) for shape in watch.maps)  # the rows asked for did


def test_waits_do_not_grow_with_depth():
    def waits(layers: int) -> int:
        model = tiny_llava(layers=layers)
        inputs = batch(prompt(model, flat=0.5), prompt(model, seed=2, flat=0.9))
        return watched(model, inputs, DROPPERS["all_stages"]).waits.total()

    assert waits(12) == waits(6)
