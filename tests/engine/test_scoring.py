"""Log-likelihoods of given continuations: those of the prefill with drops, then teacher forcing."""

import pytest
import torch
from droppers import DROPPERS
from families import FAMILIES
from family_droppers import FITTING
from models import IMAGE_TOKEN, batch, greedy, prompt, tiny_llava

from mustdrop import TokenDropper
from mustdrop.masked import masked_logits
from mustdrop.scoring import ContinuationScore, loglikelihood

TOLERANCE = 1e-5
LENGTHS = ((1, 4, 2), (3,))  # of the continuations of each prompt


@pytest.fixture(scope="module")
def model():
    return tiny_llava()


@pytest.fixture(scope="module")
def ragged(model):
    return batch(prompt(model, flat=0.5), prompt(model, before=9, after=9, images=2, seed=3))


def drawn(prompts):
    generator = torch.Generator().manual_seed(2)
    return [
        [torch.randint(6, 97, (length,), generator=generator).tolist() for length in lengths]
        for lengths in LENGTHS[:prompts]
    ]


def error(model, inputs, continuations, run, scores):
    """Largest error of a token's log-probability, against the masked model."""
    worst = 0.0
    for number, (rows, row_scores) in enumerate(zip(continuations, scores, strict=True)):
        for row, score in zip(rows, row_scores, strict=True):
            tokens = torch.tensor(row)
            forced = tokens.expand(len(continuations), -1)
            logits = masked_logits(model, run, inputs, forced, number)
            expected = logits.log_softmax(-1).gather(1, tokens[:, None])[:, 0]
            worst = max(worst, float((score.logprobs - expected).abs().max()))
            assert len(score.logprobs) == len(row)
    return worst


@pytest.mark.parametrize(
    "name", ["vanilla", "mustdrop_cache_length", pytest.param("visionzip", marks=pytest.mark.slow)]
)
def test_scores_are_those_of_the_masked_model(model, ragged, name):
    dropper = TokenDropper() if name == "vanilla" else DROPPERS[name]
    continuations = drawn(2)
    with dropper.attach(model) as run:
        scores = loglikelihood(model, ragged, continuations)
        run.require_finite()
    assert error(model, ragged, continuations, run, scores) <= TOLERANCE


@pytest.mark.parametrize("family", ["llava_next", "qwen2_5_vl"])
def test_scores_of_other_families_too(family):
    made = FAMILIES[family]
    model = made.model()
    inputs, continuations = made.inputs(model, *made.prompts[:2]), drawn(2)
    with FITTING["all_stages"].attach(model) as run:
        scores = loglikelihood(model, inputs, continuations)
    assert error(model, inputs, continuations, run, scores) <= TOLERANCE


def test_total_and_mean_are_those_of_the_tokens():
    score = ContinuationScore(torch.tensor([-1.0, -2.0, -6.0]), greedy=False)
    assert (score.total, score.mean) == (-9.0, -3.0)


def test_the_greedy_answer_is_greedy_and_the_most_likely(model, ragged):
    with DROPPERS["all_stages"].attach(model):
        answer = greedy(model, ragged, 4)[0].tolist()
        scores = loglikelihood(model, ragged, [[row, row[::-1]] for row in answer])
    assert [[score.greedy for score in row] for row in scores] == [[True, False]] * 2
    assert all(best.total > other.total for best, other in scores)


def test_a_forward_over_prompt_and_answer_selects_otherwise(model, ragged):
    """Why one forward is not enough: the answer's rows take part in the selection."""
    one, answer = prompt(model, flat=0.5), drawn(1)[0][1]
    whole = {**one, "input_ids": torch.cat([one["input_ids"], torch.tensor([answer])], 1)}
    whole["attention_mask"] = torch.ones_like(whole["input_ids"])
    with torch.inference_mode(), DROPPERS["fastv_later"].attach(model):
        (score,) = loglikelihood(model, one, [[answer]])[0]
        rows = model(**whole).logits[0, -len(answer) - 1 : -1].log_softmax(-1)
    naive = rows.gather(1, torch.tensor(answer)[:, None])[:, 0]
    assert float((score.logprobs - naive).abs().max()) > 1e-3


def test_a_cache_that_keeps_the_last_answer_is_noticed(model, ragged, monkeypatch):
    """Negative control: the second continuation would follow the first."""
    from transformers import DynamicCache

    continuations = drawn(2)
    with DROPPERS["all_stages"].attach(model) as run:
        monkeypatch.setattr(DynamicCache, "crop", lambda cache, tokens: None)
        with pytest.raises(ValueError, match="attention_mask must cover"):
            loglikelihood(model, ragged, continuations)
        monkeypatch.setattr("mustdrop.engine.turns.unfit_text", lambda *_: None)
        continuations = [[[9, 8, 7], [11, 12]], [[9, 8, 7], [13, 14]]]
        scores = loglikelihood(model, ragged, continuations)
    assert error(model, ragged, continuations, run, scores) > 1e-3


def test_order_and_neighbours_do_not_matter(model, ragged):
    rows = drawn(1)[0]
    one = prompt(model, flat=0.5)
    with DROPPERS["all_stages"].attach(model):
        scores = loglikelihood(model, one, [rows])[0]
        turned = loglikelihood(model, one, [rows[::-1]])[0][::-1]
        beside = loglikelihood(model, ragged, [rows, [[7] * 9]])[0]
    for first, second, third in zip(scores, turned, beside, strict=True):
        assert torch.allclose(first.logprobs, second.logprobs, atol=TOLERANCE)
        assert torch.allclose(first.logprobs, third.logprobs, atol=TOLERANCE)


def test_a_prompt_is_prefilled_once_for_all_its_continuations(model, ragged):
    lengths = []
    hook = model.model.language_model.layers[0].register_forward_hook(
        lambda module, args, output: lengths.append(args[0].shape[1])
    )
    with hook, DROPPERS["fastv_later"].attach(model):
        loglikelihood(model, ragged, [[[7], [8], [9, 7, 8]], [[7]]])
    assert lengths == [90, 2], "continuations of one token need the prefill alone"


@pytest.mark.parametrize(
    ("continuations", "message"),
    [
        ([[[7]]], "must be given for 2 prompts, got 1"),
        ([[[7]], []], "prompt 1: continuations must have one token or more each"),
        ([[[7], []], [[7]]], "prompt 0: continuations must have one token"),
        ([[[7]], [[7, IMAGE_TOKEN]]], "prompt 1: a continuation has a vision token"),
    ],
)
def test_continuations_that_cannot_be_scored(model, ragged, continuations, message):
    with DROPPERS["fastv_later"].attach(model), pytest.raises(ValueError, match=message):
        loglikelihood(model, ragged, continuations)


def test_a_dropper_must_be_attached(model, ragged):
    with pytest.raises(ValueError, match="needs an attached dropper"):
        loglikelihood(model, ragged, [[[7]], [[7]]])
