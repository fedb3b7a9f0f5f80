"""What every method owes, whoever wrote it: walks conf/method, so a new file is tested unasked.

Methods run on PocketLLaVA, whose attention means something.
"""

import copy
from dataclasses import fields, is_dataclass

import pytest
import torch
from hydra.utils import instantiate
from model_state import state
from models import greedy
from tiny_methods import METHODS, OF_IMAGES, closed, middle

from mustdrop import TokenDropper
from mustdrop.masked import masked_logits, relative_error
from mustdrop.pocket import load, prompt, sample
from mustdrop.presets.compose import composed
from mustdrop.presets.tuned import missing_fields


def build(method: str, budget: str = "t192", **changes) -> TokenDropper:
    """The dropper that the command line would build; untuned thresholds from their ranges."""
    cfg = composed(f"method={method}", f"budget={budget}")
    missing = [key.split(".") for key in missing_fields(cfg)]
    for stage in {stage for stage, _ in missing}:
        cfg[stage].update(middle(cfg[stage], [name for other, name in missing if other == stage]))
    return TokenDropper(**{**vars(instantiate(cfg.dropper)), **changes})


# test_oracle.py has both implementations of every strategy on a tiny model
@pytest.fixture(scope="module", params=["sdpa", pytest.param("eager", marks=pytest.mark.slow)])
def pocket(request):
    return load(attn_implementation=request.param)


def questions(processor, *numbers: int) -> dict[str, torch.Tensor]:
    samples = [sample("crowded_calibration", number) for number in numbers]
    texts = [prompt(processor, each.question) for each in samples]
    images = [each.image for each in samples]
    return dict(processor(text=texts, images=images, padding=True, return_tensors="pt"))


def known(*numbers: int) -> list[dict]:
    """What the generator knows of the same samples, for bounds."""
    samples = [sample("crowded_calibration", number) for number in numbers]
    names = ("target_patches", "object_patches")
    return [{name: getattr(each, name) for name in names} for each in samples]


def stages(dropper: TokenDropper) -> list:
    every = (dropper.vision, dropper.key_tokens, dropper.prefill, dropper.decode)
    return [stage for stage in every if stage is not None]


# Methods that the slow tests run on PocketLLaVA; a new method is tried by the default tests.
LATER = (
    "anti_oracle", "average_pool", "cls_topk", "fastv_paper", "keep_centre", "keep_last",
    "mustdrop_global", "mustdrop_individual", "mustdrop_no_keys", "mustdrop_prefill",
    "mustdrop_qwen", "mustdrop_window", "prumerge_paper", "prumerge_plus_paper", "pyramiddrop",
    "random", "sparsevlm_fixed", "text_topk", "uniform_grid", "vispruner",
)  # fmt: skip
ON_POCKET = [
    pytest.param(method, marks=[pytest.mark.slow] * (method in LATER)) for method in OF_IMAGES
]


def test_there_are_methods():
    assert {*LATER} < {*OF_IMAGES}
    assert {"vanilla", "mustdrop", "mustdrop_official", "fastv", "random"} <= set(METHODS)


@pytest.mark.parametrize("method", METHODS)
def test_a_strategy_is_a_final_frozen_dataclass_of_plain_values(method):
    for stage in stages(build(method)):
        assert is_dataclass(stage) and type(stage).__dataclass_params__.frozen
        assert getattr(type(stage), "__final__", False), f"{type(stage).__name__} is not @final"
        for field in fields(stage):
            value = getattr(stage, field.name)
            assert isinstance(value, (int, float, str, tuple, type(None))), (field.name, value)


@pytest.mark.parametrize("method", ON_POCKET)
def test_records_are_sound_and_equal_the_cache(pocket, method):
    model, processor = pocket
    depth = model.config.text_config.num_hidden_layers
    for number in range(3):
        dropper = build(method)
        with dropper.attach(model, known(number)) as run, torch.inference_mode():
            out = model(**questions(processor, number))
        ledger = run.ledgers[0]
        text = (~ledger.vision).nonzero().flatten()
        key = ledger.protected.nonzero().flatten()
        before = torch.arange(ledger.seq_len)
        for layer in range(depth):
            alive, cached = ledger.alive[layer], ledger.cached[layer]
            assert len(alive.unique()) == len(alive)
            assert torch.isin(alive, before).all(), "a token came back"
            assert torch.isin(cached, alive).all()
            for kept in (alive, cached):
                assert torch.isin(text, kept).all(), "text was dropped"
                assert torch.isin(key, kept).all(), "a key token was dropped"
            assert out.past_key_values.layers[layer].keys.shape[2] == len(cached)
            before = alive
        for source in ledger.sources:
            if source.mix is not None:
                cls = torch.zeros(len(source.cells)) if source.cls is None else source.cls
                if dropper.vision.normalised:
                    torch.testing.assert_close(source.mix.sum(1) + cls, torch.ones_like(cls))
                # what stands in a patch's place holds some of it, or [CLS], which has no place
                own = source.mix[torch.arange(len(source.cells)), source.cells]
                assert (own + cls > 0).all()


@pytest.mark.parametrize("method", ON_POCKET)
def test_a_method_repeats_itself_and_keeps_no_state(pocket, method):
    model, processor = pocket
    dropper = build(method)
    before = copy.deepcopy(vars(dropper))
    results = []
    for _ in range(2):
        with dropper.attach(model, known(3, 4)):
            greedy(model, questions(processor, 3, 4))  # another prompt in between
        with dropper.attach(model, known(0, 1)) as run:
            results.append((greedy(model, questions(processor, 0, 1)), run.ledgers))
    (first, ledgers), (second, again) = results
    assert torch.equal(first[0], second[0]) and torch.equal(first[1], second[1])
    for mine, theirs in zip(ledgers, again, strict=True):
        assert all(torch.equal(mine.alive[layer], theirs.alive[layer]) for layer in mine.alive)
    assert vars(dropper) == before


@pytest.mark.parametrize("method", ON_POCKET)
def test_dropping_equals_masking_on_a_trained_model(pocket, method):
    model, processor = pocket
    inputs = questions(processor, 0, 1)
    dropper = build(method)
    with dropper.attach(model, known(0, 1)) as run:
        tokens, logits = greedy(model, inputs, steps=3)
    for number in range(2):
        expected = masked_logits(model, run, inputs, tokens, number)
        assert relative_error(logits[number], expected) <= 1e-5


@pytest.mark.parametrize("method", ON_POCKET)
def test_the_model_is_as_found(pocket, method):
    model, processor = pocket
    inputs = questions(processor, 0)
    greedy(model, inputs)
    before, plain = state(model), greedy(model, inputs)
    with build(method).attach(model, known(0)):
        greedy(model, inputs)
    assert state(model) == before
    assert torch.equal(greedy(model, inputs)[1], plain[1])


@pytest.mark.parametrize("method", ON_POCKET)
def test_half_precision_runs_and_agrees(method):
    model, processor = load(dtype=torch.bfloat16)
    inputs = questions(processor, 0, 1, 2)
    inputs["pixel_values"] = inputs["pixel_values"].to(torch.bfloat16)
    with build(method).attach(model, known(0, 1, 2)) as run:
        tokens, logits = greedy(model, inputs, steps=3)
    assert logits.isfinite().all()
    for number in range(3):
        expected = masked_logits(model, run, inputs, tokens, number)
        assert relative_error(logits[number].float(), expected.float()) <= 0.05


@pytest.mark.parametrize("method", [m for m in OF_IMAGES if m not in ("vanilla",)])
def test_a_method_drops_what_its_preset_claims(pocket, method):
    model, processor = pocket
    with build(method).attach(model, known(0)) as run:
        greedy(model, questions(processor, 0))
    counts = run.ledgers[0].counts()
    assert counts.executed_average < 576 and counts.resident <= counts.executed_average
    if method.startswith("mustdrop"):  # a preset must fill the stages its name promises
        dropper = build(method)
        whole = method in ("mustdrop", "mustdrop_official", "mustdrop_qwen", "mustdrop_window")
        assert (len(stages(dropper)) == 4) == whole and run.images[0].blocks
        assert run.ledgers[0].protected.any() == (dropper.key_tokens is not None)
    elif closed(method):  # thresholds meet a budget on average only
        assert counts.executed_average == pytest.approx(192, rel=0.01)
