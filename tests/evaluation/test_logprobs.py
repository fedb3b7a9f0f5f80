"""Log-probabilities of an answer's tokens: the masked model's, in any batch, from the same call."""

import json
from math import fsum

import pytest
import torch
from droppers import DROPPERS
from models import batch, prompt, tiny_llava
from pocket_runs import SPLIT, evaluated, pocket, task  # noqa: F401  (fixtures)
from transformers import LogitsProcessorList

from mustdrop import TokenDropper
from mustdrop.evaluation.answers import generate_options
from mustdrop.evaluation.logprobs import TokenLogprobs, recorded
from mustdrop.evaluation.passes import model_pass
from mustdrop.evaluation.token_controls import Controls
from mustdrop.masked import masked_logits
from mustdrop.pocket.dataset import sample
from mustdrop.pocket.evaluation import prompt as question_text
from mustdrop.prefill.fastv import FastV
from mustdrop.scoring import loglikelihood

TOLERANCE = 1e-5
FASTV = TokenDropper(prefill=FastV(keep=64, layer=0))


@pytest.fixture(scope="module")
def model():
    return tiny_llava()


def inputs_of(model, ragged):
    prompts = [prompt(model, flat=0.5)]
    return batch(*prompts, *([prompt(model, before=9, images=2, seed=3)] if ragged else []))


@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("name", ["vanilla", "mustdrop_cache_length"])
def test_they_are_those_of_the_masked_model(model, name, ragged):
    dropper = TokenDropper() if name == "vanilla" else DROPPERS[name]
    inputs, gather = inputs_of(model, ragged), TokenLogprobs()
    options = generate_options({}, 5, 0) | {"logits_processor": LogitsProcessorList([gather])}
    with dropper.attach(model) as run:
        new = model.generate(**inputs, **options)[:, inputs["input_ids"].shape[1] :]
    logprobs = gather.of(new)
    assert logprobs.shape == (1 + ragged, 5) and logprobs.dtype == torch.float32
    for number, row in enumerate(new):
        logits = masked_logits(model, run, inputs, new, number)
        expected = logits.log_softmax(-1).gather(1, row[:, None])[:, 0]
        assert (logprobs[number] - expected).abs().max() <= TOLERANCE
        assert expected.std() > 0.01, "equal ones would show nothing"


def test_a_pass_reads_them_from_the_device_with_its_tokens(model):
    inputs, gather = inputs_of(model, True), TokenLogprobs()
    options = generate_options({}, 5, 0)
    passed = model_pass(model, TokenDropper(), ["a", "b"], inputs, options)
    with TokenDropper().attach(model):
        tokens = model.generate(**inputs, **options, logits_processor=LogitsProcessorList([gather]))
    new = tokens[:, inputs["input_ids"].shape[1] :]
    assert torch.equal(passed.rows, new)
    assert torch.equal(passed.logprobs, gather.of(new)), "every bit"


def test_beams_have_none(model):
    options = generate_options({"num_beams": 2}, 3, 0)
    assert (
        model_pass(model, TokenDropper(), ["a"], inputs_of(model, False), options).logprobs is None
    )


def test_sampling_does_not_change_whose_probabilities_they_are(model):
    """A draw at a high temperature: log-probabilities of the model, not of the flattened scores."""
    inputs = inputs_of(model, False)
    options = generate_options({"do_sample": True, "temperature": 5.0}, 6, 0)
    torch.manual_seed(1)
    passed = model_pass(model, TokenDropper(), ["a"], inputs, options)
    with TokenDropper().attach(model):
        (scores,) = loglikelihood(model, inputs, [[passed.rows[0].tolist()]])
    assert (passed.logprobs[0] - scores[0].logprobs).abs().max() <= TOLERANCE


def test_one_step_too_many_is_left_out():
    scores = [torch.randn(2, 5) for _ in range(3)]
    tokens = torch.tensor([[1, 2, 3], [4, 0, 1]])
    gather = TokenLogprobs()
    for step in range(3):
        gather(torch.cat([torch.zeros(2, 1, dtype=torch.long), tokens[:, :step]], 1), scores[step])
    expected = torch.stack([s.log_softmax(-1) for s in scores], 1).gather(2, tokens[..., None])
    assert torch.allclose(gather.of(tokens[:, :2]), expected[:, :2, 0])


@pytest.mark.parametrize("batch_size", [pytest.param(1, marks=pytest.mark.slow), 4])
def test_samples_have_those_of_teacher_forcing(pocket, task, batch_size):
    model, processor = pocket
    _, samples = evaluated(pocket, task, 4, FASTV, batch_size)
    for line in samples:
        shown = sample(SPLIT, line["doc_id"])
        text = [question_text(processor, shown.question)]
        inputs = processor(images=[shown.image], text=text, return_tensors="pt")
        row = processor.tokenizer(line["answer"], add_special_tokens=False)["input_ids"]
        ended = [*row, processor.tokenizer.eos_token_id]
        with FASTV.attach(model):
            (scores,) = loglikelihood(model, inputs, [[ended]])
        assert len(line["logprobs"]) == line["new_tokens"] == len(ended)
        assert line["logprobs"] == pytest.approx(scores[0].logprobs.tolist(), abs=TOLERANCE)
    assert len({round(fsum(line["logprobs"]), 2) for line in samples}) > 1


def test_control_passes_have_them_too(pocket, task):
    controls = Controls("one", (0,), (), False)
    _, samples = evaluated(pocket, task, 2, FASTV, controls=controls)
    for line in samples:
        (control,) = line["controls"]["schedule_random"]
        assert len(control["logprobs"]) >= 1
        assert control["logprobs"] != line["logprobs"]
        json.dumps(line)


def test_a_record_has_six_digits():
    assert recorded(torch.tensor([-0.12345678, -2.0])) == [-0.123457, -2.0]
