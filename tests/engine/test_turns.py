"""Text after a prompt on its cut cache: second turns, several tokens at once, forwards without."""

import pytest
import torch
from droppers import DROPPERS
from families import FAMILIES
from family_droppers import FITTING_OF
from models import batch, prompt, tiny_llava

from mustdrop import TokenDropper
from mustdrop.engine import turns
from mustdrop.masked import masked_logits, masked_prompt_logits, relative_error

TOLERANCE = 1e-5
STEPS = 3
SLOW = pytest.mark.slow
OPTIONS = {
    "max_new_tokens": STEPS, "do_sample": False, "pad_token_id": 0, "output_logits": True,
    "return_dict_in_generate": True,
}  # fmt: skip


@pytest.fixture(scope="module")
def model():
    return tiny_llava()


@pytest.fixture(scope="module")
def one(model):
    return prompt(model, flat=0.5)


@pytest.fixture(scope="module")
def ragged(model, one):
    return batch(one, prompt(model, before=9, after=9, images=2, seed=3))


def asked(sequences, tokens=4):
    """The sequences with a second question of so many tokens."""
    generator = torch.Generator().manual_seed(1)
    more = torch.randint(6, 97, (len(sequences), tokens), generator=generator)
    return torch.cat([sequences, more], 1)


def whole_mask(inputs, ids):
    mask = inputs["attention_mask"]
    return torch.cat([mask, mask.new_ones(len(ids), ids.shape[1] - mask.shape[1])], 1)


def second_turn_error(model, inputs, dropper, form="whole", **first):
    """Largest error of a second answer, against the masked model over both turns."""
    with torch.inference_mode(), dropper.attach(model) as run:
        out = model.generate(**inputs, **OPTIONS, **first)
        seen = out.sequences.shape[1] - 1
        ids = asked(out.sequences)
        call = {"input_ids": ids if form == "whole" else ids[:, seen:]}
        if len(ids) > 1 or form == "new":
            call["attention_mask"] = whole_mask(inputs, ids)
        ledgers = run.ledgers
        second = model.generate(**call, past_key_values=out.past_key_values, **OPTIONS)
        assert run.ledgers is ledgers
    length = inputs["input_ids"].shape[1]
    assert second.sequences.shape[1] == call["input_ids"].shape[1] + STEPS
    new = torch.cat([ids[:, length:], second.sequences[:, -STEPS:]], 1)
    assert run.later == new.shape[1] - 1
    for layer, cached in enumerate(second.past_key_values.layers):
        longest = max(len(ledger.cached[layer]) for ledger in run.ledgers)
        assert cached.keys.shape[-2] == longest + run.later
    logits = torch.stack(second.logits, 1)
    return max(
        relative_error(logits[number], masked_logits(model, run, inputs, new, number)[-STEPS:])
        for number in range(len(inputs["input_ids"]))
    )


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("mustdrop_cache_length", "whole"),
        ("visionzip", "new"),
        pytest.param("visionzip", "whole", marks=SLOW),
        pytest.param("fastv_later", "whole", marks=SLOW),
        pytest.param("mustdrop_cache_length", "new", marks=SLOW),
    ],
)
def test_a_second_turn_equals_the_masked_model(model, ragged, name, form):
    assert second_turn_error(model, ragged, DROPPERS[name], form) <= TOLERANCE


def test_one_prompt_needs_no_mask(model, one):
    assert second_turn_error(model, one, DROPPERS["mustdrop_compact"]) <= TOLERANCE


def test_eager_attention_and_no_drop(model, ragged):
    assert second_turn_error(tiny_llava("eager"), ragged, DROPPERS["all_stages"]) <= TOLERANCE
    assert second_turn_error(model, ragged, TokenDropper()) <= TOLERANCE


@pytest.mark.parametrize(
    "family",
    [
        "llava_next", "qwen2_5_vl", pytest.param("qwen3_vl", marks=SLOW),
        pytest.param("gemma3", marks=SLOW), pytest.param("paligemma", marks=SLOW),
    ],
)  # fmt: skip
def test_a_second_turn_of_other_families(family):
    made = FAMILIES[family]
    model = made.model()
    inputs = made.inputs(model, *made.prompts[:2])
    assert second_turn_error(model, inputs, FITTING_OF[family]["all_stages"]) <= TOLERANCE


def test_without_our_count_a_second_turn_would_be_wrong(model, one, monkeypatch):
    """Negative control: generate takes the length of layer 0's cut cache for all tokens."""
    monkeypatch.setattr(turns, "whole_turns", lambda prepare, decode: prepare)
    monkeypatch.setattr(turns, "unfit_text", lambda *_: None)
    with DROPPERS["visionzip"].attach(model):
        out = model.generate(**one, **OPTIONS)
        fed = []
        hook = model.register_forward_pre_hook(
            lambda module, args, kwargs: fed.append(kwargs["input_ids"].shape[1]), with_kwargs=True
        )
        with hook:
            ids = asked(out.sequences)
            model.generate(input_ids=ids, past_key_values=out.past_key_values, **OPTIONS)
    assert fed[0] > 5, "the control feeds what the cache has seen"


@torch.inference_mode()
def logits_of(model, inputs, new, parts):
    """Logits at the new tokens of each prompt, given in parts by a hand-written loop."""
    out = model(**inputs)
    rows, at = [out.logits[:, -1:]], 0
    for part in parts:
        ids = new[:, at : at + part]
        at += part
        mask = torch.cat([inputs["attention_mask"], torch.ones_like(new[:, :at])], 1)
        out = model(input_ids=ids, attention_mask=mask, past_key_values=out.past_key_values)
        rows.append(out.logits)
    return torch.cat(rows, 1)


@pytest.mark.parametrize(
    "name", ["mustdrop_cache_length", pytest.param("mustdrop_compact", marks=SLOW)]
)
def test_several_tokens_at_once_are_single_steps(model, ragged, name):
    new = asked(torch.zeros(2, 0, dtype=torch.long), 7)
    with DROPPERS[name].attach(model) as run:
        found = [logits_of(model, ragged, new, parts) for parts in ([6], [1, 3, 2])]
    for number in range(2):
        expected = masked_logits(model, run, ragged, new, number)
        for logits in found:
            assert relative_error(logits[number], expected) <= TOLERANCE


def test_a_mask_that_is_not_causal_is_noticed(model, ragged, monkeypatch):
    """Negative control: new tokens that see the tokens after them."""
    from mustdrop.engine.layout import Masks

    decode = Masks.decode

    def open_mask(self, pads, length, new, like):
        mask = decode(self, pads, length, new, like)
        return mask if new == 1 else mask[:, :, -1:].expand_as(mask)

    new = asked(torch.zeros(2, 0, dtype=torch.long), 7)
    with DROPPERS["all_stages"].attach(model) as run:
        monkeypatch.setattr(Masks, "decode", open_mask)
        logits = logits_of(model, ragged, new, [6])
    assert relative_error(logits[0], masked_logits(model, run, ragged, new, 0)) > 1e-3


def test_a_new_image_in_a_second_turn(model, one):
    with DROPPERS["all_stages"].attach(model):
        out = model.generate(**one, **OPTIONS)
        cache = {"past_key_values": out.past_key_values}
        ids = torch.cat([asked(out.sequences), one["input_ids"]], 1)
        with pytest.raises(
            ValueError, match=r"takes text alone, got pixel_values: .* as one new prompt"
        ):
            model.generate(ids, pixel_values=one["pixel_values"], **cache, max_new_tokens=1)
        with pytest.raises(ValueError, match="tokens after the prefill must be text"):
            model.generate(ids, **cache, max_new_tokens=1)
        with pytest.raises(ValueError, match="46 tokens after the prefill must be text"):
            model(**one, **cache)
        again = model.generate(asked(out.sequences), **cache, **OPTIONS)  # nothing was left behind
        assert again.sequences.shape == (1, 46 + STEPS + 4 + STEPS)


def test_prefilling_the_conversation_anew_selects_by_the_new_question(model, one):
    """The exact alternative to a second turn: a plain call, with selection by all of the text."""
    with DROPPERS["fastv_later"].attach(model) as run:
        out = model.generate(**one, **OPTIONS)
        first = run.ledgers[0].alive[5]
        ids = asked(out.sequences)
        anew = {"input_ids": ids, "pixel_values": one["pixel_values"]}
        second = model.generate(**anew, **OPTIONS)
    assert run.ledgers[0].seq_len == ids.shape[1]
    assert not torch.equal(run.ledgers[0].alive[5][:13], first[:13]), "the selection is the same"
    new = second.sequences[:, ids.shape[1] :]
    expected = masked_logits(model, run, anew, new)
    assert relative_error(torch.stack(second.logits, 1)[0], expected) <= TOLERANCE


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda ids, inputs: {"input_ids": ids[:1]}, "must have 2 rows, as the KV cache has"),
        (lambda ids, inputs: {"input_ids": ids}, "attention_mask must be given, because prompts"),
        (
            lambda ids, inputs: {"input_ids": ids[:, :20], "attention_mask": None},
            "attention_mask must be given",
        ),
        (
            lambda ids, inputs: {
                "input_ids": ids[:, -4:], "attention_mask": torch.ones(2, 40).long()
            },
            "input_ids has 4 tokens, but the KV cache has seen 92",
        ),
        (
            lambda ids, inputs: {
                "input_ids": ids.roll(1, 1), "attention_mask": whole_mask(inputs, ids)
            },
            "must begin with the prompt",
        ),
        (
            lambda ids, inputs: {
                "input_ids": ids,
                "attention_mask": whole_mask(inputs, ids).index_fill(1, torch.tensor([91]), 0),
            },
            r"attention_mask must cover the 97 tokens .* where an answer of a batch ended early",
        ),
        (
            lambda ids, inputs: {
                "input_ids": ids, "attention_mask": whole_mask(inputs, ids), "num_beams": 2
            },
            "one sequence per row of the cache, got 2",
        ),
    ],
)  # fmt: skip
def test_turns_that_would_be_guesses(model, ragged, change, message):
    with DROPPERS["all_stages"].attach(model):
        out = model.generate(**ragged, **OPTIONS)
        call = change(asked(out.sequences), ragged)
        with pytest.raises(ValueError, match=message):
            model.generate(**call, past_key_values=out.past_key_values, max_new_tokens=1)


def test_caches_that_no_turn_may_continue(model, one):
    with DROPPERS["all_stages"].attach(model):
        beams = model.generate(**one, **OPTIONS, num_beams=2)
        more = asked(beams.sequences.repeat(2, 1))
        with pytest.raises(ValueError, match="a turn after beam search"):
            model.generate(more, past_key_values=beams.past_key_values, max_new_tokens=1)
        with pytest.raises(ValueError, match="a turn after beam search"):
            model(input_ids=more[:, -4:], past_key_values=beams.past_key_values)
        first = model.generate(**one, **OPTIONS)
        model.generate(**one, **OPTIONS)
        with pytest.raises(ValueError, match="not filled by the last prefill"):
            model.generate(asked(first.sequences), past_key_values=first.past_key_values)


def test_a_cache_that_was_cropped(model, one):
    """Guessed tokens may be taken back, but no token of the prompt."""
    new = asked(torch.zeros(1, 0, dtype=torch.long), 3)
    with torch.inference_mode(), DROPPERS["all_stages"].attach(model):
        cache = model(**one).past_key_values
        expected = model(input_ids=new, past_key_values=cache).logits
        cache.crop(-3)
        assert torch.equal(model(input_ids=new, past_key_values=cache).logits, expected)
        cache.crop(-5)
        with pytest.raises(ValueError, match="2 tokens of the prompts were cropped"):
            model(input_ids=new, past_key_values=cache)


def test_samples_may_be_continued(model, ragged):
    """Each sampled sequence has its row of the cache."""
    with torch.inference_mode(), DROPPERS["all_stages"].attach(model) as run:
        out = model.generate(**ragged, **{**OPTIONS, "do_sample": True}, num_return_sequences=2)
        ids = asked(out.sequences)
        repeated = {"attention_mask": ragged["attention_mask"].repeat_interleave(2, 0)}
        second = model.generate(
            ids, attention_mask=whole_mask(repeated, ids), past_key_values=out.past_key_values,
            **OPTIONS,
        )  # fmt: skip
    logits, length = torch.stack(second.logits, 1), ragged["input_ids"].shape[1]
    for row, tokens in enumerate(second.sequences[:, length:]):
        expected = masked_logits(model, run, ragged, tokens.expand(2, -1), row // 2)
        assert relative_error(logits[row], expected[-STEPS:]) <= TOLERANCE


@pytest.mark.parametrize("name", ["mustdrop_cache_length", pytest.param("fastv_later", marks=SLOW)])
def test_a_forward_without_a_cache_is_the_prefill(model, ragged, name):
    """Row i of the logits is the i-th token that the last layer has, padded on the left."""
    with torch.inference_mode(), DROPPERS[name].attach(model) as run:
        cached = model(**ragged)
        kept = [ledger.cached for ledger in run.ledgers]
        out = model(**ragged, use_cache=False)
        assert torch.equal(out.logits, cached.logits) and out.past_key_values is None
        for before, ledger in zip(kept, run.ledgers, strict=True):
            assert all(torch.equal(before[layer], now) for layer, now in ledger.cached.items())
    for number, ledger in enumerate(run.ledgers):
        expected = masked_prompt_logits(model, run, ragged, number)
        text = ~ledger.vision[ledger.alive[5]]
        assert text.sum() == ledger.text_tokens
        rows = out.logits[number, -len(ledger.alive[5]) :]
        assert relative_error(rows[text], expected[text]) <= TOLERANCE


def test_a_forward_without_a_cache_leaves_none_to_continue(model, one):
    with torch.inference_mode(), DROPPERS["all_stages"].attach(model):
        before = model(**one).past_key_values
        model(**one, use_cache=False)
        with pytest.raises(ValueError, match="not filled by the last prefill"):
            model(input_ids=torch.tensor([[7]]), past_key_values=before)
