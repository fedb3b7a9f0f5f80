"""Beams and samples under a dropper: each returned sequence has the masked model's logits."""

import pytest
import torch
from droppers import DROPPERS
from families import FAMILIES
from family_droppers import FITTING
from models import batch, greedy, prompt, tiny_llava
from transformers import DynamicCache

from mustdrop import TokenDropper
from mustdrop.masked import masked_logits, relative_error

TOLERANCE = 1e-5
BEAMS = {"num_beams": 3, "num_return_sequences": 2}
SAMPLES = {"do_sample": True, "num_return_sequences": 2}
SLOW = pytest.mark.slow
RECORDED = {"output_logits": True, "return_dict_in_generate": True, "pad_token_id": 0}


@pytest.fixture(scope="module")
def model():
    return tiny_llava()


@pytest.fixture(scope="module")
def ragged(model):
    return batch(prompt(model, flat=0.5), prompt(model, before=9, after=9, images=2, seed=3))


def generated(model, inputs, dropper, **options):
    """(run, new tokens, logits that each new token was chosen from) of all returned sequences."""
    torch.manual_seed(0)
    with torch.inference_mode(), dropper.attach(model) as run:
        out = model.generate(**inputs, max_new_tokens=4, **RECORDED, **options)
    new = out.sequences[:, inputs["input_ids"].shape[1] :]
    logits = torch.stack(out.logits, 1)
    if "num_beams" in options:  # the row that each token of a returned sequence was chosen from
        steps = torch.arange(new.shape[1])
        logits = torch.stack([logits[rows, steps] for rows in out.beam_indices])
    return run, new, logits


def worst_error(model, inputs, dropper, **options):
    run, new, logits = generated(model, inputs, dropper, **options)
    prompts, per_prompt = len(inputs["input_ids"]), options["num_return_sequences"]
    assert len(run.ledgers) == prompts and len(new) == prompts * per_prompt
    assert run.later == 3
    errors = []
    for row, tokens in enumerate(new):
        number = row // per_prompt
        alone = tokens.expand(prompts, -1)
        expected = masked_logits(model, run, inputs, alone, number)
        errors.append(relative_error(logits[row], expected))
    return max(errors)


@pytest.mark.parametrize("options", [BEAMS, SAMPLES], ids=["beams", "samples"])
@pytest.mark.parametrize(
    "name",
    [
        "mustdrop_cache_length",
        *(
            pytest.param(name, marks=SLOW)
            for name in ("fastv_later", "all_stages", "sparsevlm_keys")
        ),
    ],
)
def test_every_sequence_equals_the_masked_model(model, ragged, name, options):
    assert worst_error(model, ragged, DROPPERS[name], **options) <= TOLERANCE


@pytest.mark.parametrize(
    ("family", "options"),
    [
        pytest.param("llava_next", BEAMS, id="llava_next-beams"),
        pytest.param("qwen2_5_vl", SAMPLES, id="qwen2_5_vl-samples"),
        pytest.param("llava_next", SAMPLES, id="llava_next-samples", marks=SLOW),
        pytest.param("qwen2_5_vl", BEAMS, id="qwen2_5_vl-beams", marks=SLOW),
    ],
)
def test_every_sequence_of_other_families_too(family, options):
    made = FAMILIES[family]
    model = made.model()
    inputs = made.inputs(model, *made.prompts[:2])
    assert worst_error(model, inputs, FITTING["all_stages"], **options) <= TOLERANCE


@SLOW
def test_eager_attention_gives_the_same_beams(ragged):
    assert worst_error(tiny_llava("eager"), ragged, DROPPERS["all_stages"], **BEAMS) <= TOLERANCE


def test_a_cut_cache_that_is_not_reordered_is_noticed(model, ragged, monkeypatch):
    """Negative control: without the reordering, beams read one another's tokens."""
    monkeypatch.setattr(DynamicCache, "reorder_cache", lambda self, beams: None)
    assert worst_error(model, ragged, DROPPERS["all_stages"], **BEAMS) > 1e-3


def test_a_repeat_in_the_wrong_order_is_noticed(model, ragged, monkeypatch):
    """Negative control: sequences that start from the cache of another prompt."""
    repeat = DynamicCache.batch_repeat_interleave

    def swapped(cache, count):
        repeat(cache, count)
        cache.batch_select_indices(torch.arange(2 * count).flip(0))

    monkeypatch.setattr(DynamicCache, "batch_repeat_interleave", swapped)
    assert worst_error(model, ragged, DROPPERS["all_stages"], **SAMPLES) > 1e-3


def test_one_beam_and_the_best_of_one_are_greedy(model, ragged):
    dropper = DROPPERS["all_stages"]
    with dropper.attach(model):
        tokens, _ = greedy(model, ragged, 4)
        once = model.generate(**ragged, max_new_tokens=4, num_beams=1, pad_token_id=0)
    assert torch.equal(once[:, -4:], tokens)
    _, sampled, _ = generated(model, ragged, dropper, do_sample=True, top_k=1,
                              num_return_sequences=2)  # fmt: skip
    assert torch.equal(sampled, tokens.repeat_interleave(2, 0))


def test_dropping_nothing_changes_no_beam(model, ragged):
    options = {"max_new_tokens": 5, "pad_token_id": 0, **BEAMS}
    plain = model.generate(**ragged, **options)
    with TokenDropper().attach(model):
        assert torch.equal(model.generate(**ragged, **options), plain)


def test_each_prompt_is_prefilled_and_scored_once(model, ragged):
    rows = []
    handle = model.model.language_model.layers[0].register_forward_hook(
        lambda module, args, output: rows.append(args[0].shape[:2])
    )
    with handle, DROPPERS["fastv_later"].attach(model) as run:
        model.generate(**ragged, max_new_tokens=2, pad_token_id=0, num_beams=4)
    assert [tuple(shape) for shape in rows] == [(2, 90), (8, 1)]
    assert run.ledgers[0].scored_rows == {1: 1}


def test_a_prompt_with_text_alone_may_have_beams(model, ragged):
    text = {"input_ids": ragged["input_ids"][:1, -6:]}
    plain = model.generate(**text, max_new_tokens=4, pad_token_id=0, num_beams=3)
    with DROPPERS["all_stages"].attach(model):
        found = model.generate(**text, max_new_tokens=4, pad_token_id=0, num_beams=3)
    assert torch.equal(found, plain)


def test_hidden_states_are_those_of_the_rows(model, ragged):
    with DROPPERS["fastv_later"].attach(model):
        out = model.generate(
            **ragged, max_new_tokens=1, do_sample=True, num_return_sequences=2, pad_token_id=0,
            return_dict_in_generate=True, output_hidden_states=True,
        )  # fmt: skip
    assert [len(states) for states in out.hidden_states[0]] == [4] * 7


def test_numbers_that_are_not_finite_name_the_prompt(model, ragged):
    """With several sequences per prompt, rows of the logits are not prompts."""
    broken = {**ragged, "pixel_values": ragged["pixel_values"].clone()}
    broken["pixel_values"][1] = float("nan")  # the first image of prompt 1
    with DROPPERS["fastv_later"].attach(model) as run:
        model.generate(**broken, max_new_tokens=2, pad_token_id=0, num_beams=3)
        with pytest.raises(ValueError, match="prompt 1: the pixels are not finite"):
            run.require_finite()
        head = model.lm_head.register_forward_hook(lambda m, a, out: _nan_in_last_row(out))
        with head, pytest.raises(ValueError, match="prompt 1: the logits of the first new token"):
            model.generate(**ragged, max_new_tokens=1, pad_token_id=0, num_beams=3)
            run.require_finite()


def _nan_in_last_row(logits):
    logits = logits.clone()
    logits[-1] = float("nan")
    return logits


def test_text_after_samples_continues_each_prompt_without_given_positions(model, ragged):
    """The cache holds the prompts alone; the next position of a row is its number of tokens."""
    text = torch.tensor([[7], [8], [9], [10]])
    lengths = ragged["attention_mask"].sum(1).repeat_interleave(2)
    logits = []
    for given in ({}, {"position_ids": lengths[:, None]}):
        with torch.inference_mode(), DROPPERS["all_stages"].attach(model):
            out = model.generate(**ragged, **SAMPLES, **RECORDED, max_new_tokens=1)
            logits.append(model(text, past_key_values=out.past_key_values, **given).logits)
    assert torch.equal(*logits)


def test_every_token_of_a_later_text_is_looked_at(model, ragged):
    def broken(module, args, logits):
        return logits.index_fill(1, torch.tensor([0]), float("nan"))  # not the last token's

    with torch.inference_mode(), DROPPERS["fastv_later"].attach(model) as run:
        out = model(**ragged)
        with model.lm_head.register_forward_hook(broken):
            model(torch.tensor([[7, 8, 9]] * 2), past_key_values=out.past_key_values)
        with pytest.raises(ValueError, match="prompt 0: the logits of later tokens"):
            run.require_finite()


def test_an_old_transformers_that_repeats_pixels_is_refused(model, ragged, monkeypatch):
    monkeypatch.setattr("mustdrop.engine.generation.encodes_before_repeating", lambda model: False)
    with (
        DROPPERS["fastv_later"].attach(model),
        pytest.raises(ValueError, match=r"with 3 sequences per prompt needs .* 5\.20 or newer"),
    ):
        model.generate(**ragged, max_new_tokens=1, num_beams=3)
