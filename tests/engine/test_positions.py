"""Rotary positions: renumbered where the dropper says so, and right however a caller counts."""

import pytest
import torch
from cases import AnyPrefill, AnyVision
from models import batch, greedy, prompt, tiny_llava

from mustdrop import Reduction, TokenDropper, VisionStrategy
from mustdrop.decode.output_aware import OutputAware
from mustdrop.masked import masked_logits, relative_error
from mustdrop.prefill.random import Random
from mustdrop.prefill.sparsevlm import SparseVLM
from mustdrop.vision.prumerge import PruMerge, PruMergePlus

TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def model():
    return tiny_llava()


class Reverse(VisionStrategy):
    """Reverses an image's tokens, and drops half of them where ``half`` says so."""

    places = ("features",)

    def __init__(self, half) -> None:
        self.half = half

    def reduce(self, view) -> Reduction:
        order = torch.arange(len(view.sizes) - 1, -1, -1)
        return Reduction(order[::2] if self.half(view) else order)


def first_value_decides(view) -> bool:
    return bool(view.hidden[0, 0] > view.hidden[1, 0])


REORDERS = {
    "prumerge, all kept": TokenDropper(PruMerge(keep=36), vision_positions="compact"),
    "prumerge_plus, all kept": TokenDropper(PruMergePlus(keep=36), vision_positions="compact"),
    "reversed": TokenDropper(Reverse(lambda view: False), vision_positions="compact"),
    "sparsevlm, all recycled": TokenDropper(
        prefill=SparseVLM(keep=[27], layers=[0], recycle=1.0, per_cluster=1), positions="compact"
    ),
    "reversed, then dropped": TokenDropper(
        Reverse(lambda view: False), prefill=Random(9, layer=2), decode=OutputAware(0),
        vision_positions="compact", positions="compact", decode_positions="cache_length",
    ),
}  # fmt: skip


@pytest.mark.parametrize("ragged", [False, True], ids=["one", "ragged"])
@pytest.mark.parametrize("name", REORDERS)
def test_tokens_that_are_reordered_and_all_stay_are_counted_anew(model, name, ragged):
    one = prompt(model, seed=1)
    inputs = batch(one, prompt(model, before=2, after=12, seed=3), one) if ragged else one
    with REORDERS[name].attach(model) as run:
        tokens, logits = greedy(model, inputs)
    for number, ledger in enumerate(run.ledgers):
        if "reversed" in name:
            assert ledger.alive[0].tolist() != sorted(ledger.alive[0].tolist())
            assert len(ledger.alive[0]) == ledger.seq_len
        expected = masked_logits(model, run, inputs, tokens, number)
        assert relative_error(logits[number], expected) <= TOLERANCE


def test_a_reordered_prompt_does_not_depend_on_a_neighbour_that_lost_tokens(model):
    dropper = TokenDropper(Reverse(first_value_decides), vision_positions="compact")
    alone = {}
    with dropper.attach(model) as run:
        for seed in range(12):
            single = prompt(model, seed=seed)
            logits = greedy(model, single, 3)[1][0]
            alone[len(run.ledgers[0].alive[0])] = single, logits
        (whole, expected), (cut, expected_cut) = alone[46], alone[28]
        together = greedy(model, batch(whole, cut), 3)[1]
    assert relative_error(together[0], expected) <= TOLERANCE
    assert relative_error(together[1], expected_cut) <= TOLERANCE


@torch.inference_mode()
def decoded(model, inputs, steps=4, start=None, mask=True):
    """Logits of a hand-written loop; positions from ``start`` on, or none given."""
    at = None if start is None else torch.arange(inputs["input_ids"].shape[1])[None] + start
    out = model(**inputs, **({} if at is None else {"position_ids": at}), use_cache=True)
    rows, seen = [out.logits[:, -1]], inputs["attention_mask"]
    for step in range(steps - 1):
        new = rows[-1].argmax(-1)[:, None]
        seen = torch.cat([seen, torch.ones_like(new)], 1)
        options = {} if at is None else {"position_ids": at[:, -1:] + 1 + step}
        options |= {"attention_mask": seen} if mask else {}
        out = model(input_ids=new, past_key_values=out.past_key_values, **options)
        rows.append(out.logits[:, -1])
    return torch.stack(rows, 1)


RULES = {
    "original": {},
    "compact": {"positions": "compact", "vision_positions": "compact"},
    "cache_length": {"positions": "compact", "decode_positions": "cache_length"},
}


@pytest.mark.parametrize("rule", ["nothing dropped", *RULES])
def test_a_manual_loop_on_a_left_padded_batch(model, rule):
    """Without position_ids the model counts padding; so must the decoding."""
    inputs = batch(
        prompt(model, seed=1), prompt(model, before=2, after=3, seed=2), prompt(model, 9, 1, seed=3)
    )
    if rule == "nothing dropped":
        plain = decoded(model, inputs)
        with TokenDropper().attach(model):
            found = decoded(model, inputs)
        assert torch.equal(found, plain)
        return
    dropper = TokenDropper(prefill=Random(10, layer=1), decode=OutputAware(0), **RULES[rule])
    with dropper.attach(model) as run:
        found = decoded(model, inputs)
    for number in range(3):
        expected = masked_logits(model, run, inputs, found.argmax(-1), number)
        assert relative_error(found[number], expected) <= TOLERANCE


@pytest.mark.parametrize("rule", RULES)
def test_positions_may_start_anywhere(model, rule):
    """Rotary attention sees differences alone, so a prompt at 50 answers as one at 0."""
    dropper = TokenDropper(prefill=Random(9, layer=1), decode=OutputAware(0), **RULES[rule])
    inputs = prompt(model)
    with dropper.attach(model):
        expected, found = decoded(model, inputs), decoded(model, inputs, start=50)
    assert relative_error(found, expected) <= TOLERANCE


def test_another_order_of_tokens_in_several_images_is_no_drop(model):
    """Tokens stay in their images, so that an exchange of two images' tokens changes nothing."""
    parts = prompt(model, seed=1), prompt(model, seed=2)
    inputs = {  # text stands between the images
        name: torch.cat([part[name] for part in parts], 0 if name == "pixel_values" else 1)
        for name in parts[0]
    }
    keep_one = AnyVision((0,), seed=0, share=0.0, mixes=False, least=1)
    for seed in range(4):  # either order of the two tokens
        dropper = TokenDropper(keep_one, prefill=AnyPrefill((0,), seed, 1.0, False),
                               positions="compact")  # fmt: skip
        with dropper.attach(model) as run:
            tokens, logits = greedy(model, inputs, 3)
        expected = masked_logits(model, run, inputs, tokens)
        assert relative_error(logits[0], expected) <= TOLERANCE
