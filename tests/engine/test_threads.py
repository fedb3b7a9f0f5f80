"""Contexts in any order and in several threads: no answer is mixed up, nothing is left behind."""

import copy
import threading

import pytest
import torch
from droppers import DROPPERS
from models import greedy, prompt, tiny_llava
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from versions import ATTENTION

from mustdrop import PrefillStrategy, Reduction, TokenDropper
from mustdrop.engine.tap import attention_tap
from mustdrop.prefill.pyramiddrop import PyramidDrop

LOOKS_AHEAD = TokenDropper(prefill=PyramidDrop([0.5, 0.2], layers=[-1, 2]))


def table() -> dict:
    return dict(ALL_ATTENTION_FUNCTIONS._local_mapping)


@pytest.mark.parametrize("attention", ATTENTION)
@pytest.mark.parametrize("dropper", [DROPPERS["fastv"], DROPPERS["all_stages"], LOOKS_AHEAD])
@pytest.mark.parametrize("first_out", [0, 1])
def test_contexts_that_overlap(dropper, attention, first_out):
    before = table()
    models = [tiny_llava(attention, seed=seed) for seed in (0, 1)]
    inputs = prompt(models[0], flat=0.5)
    expected = []
    for model in models:
        with dropper.attach(model):
            expected.append(greedy(model, inputs, 2)[1])
    contexts = [dropper.attach(model) for model in models]
    for context in contexts:
        context.__enter__()
    for model, logits in zip(models, expected, strict=True):
        assert torch.equal(greedy(model, inputs, 2)[1], logits)
    contexts[first_out].__exit__(None, None, None)
    left = 1 - first_out
    assert torch.equal(greedy(models[left], inputs, 2)[1], expected[left])
    contexts[left].__exit__(None, None, None)
    assert table() == before


def test_several_models_in_several_threads():
    before = table()
    droppers = [DROPPERS["fastv"], DROPPERS["all_stages"], LOOKS_AHEAD]
    models = [tiny_llava(seed=seed) for seed in range(3)]
    inputs = [prompt(models[0], seed=seed, flat=0.5) for seed in range(4)]
    expected = []
    for model, dropper in zip(models, droppers, strict=True):
        with dropper.attach(model):
            expected.append([greedy(model, one, 2)[1] for one in inputs])
    failures = []

    def work(number: int) -> None:
        try:
            for _ in range(3):
                with droppers[number].attach(models[number]):
                    for one, logits in zip(inputs, expected[number], strict=True):
                        assert torch.equal(greedy(models[number], one, 2)[1], logits)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=[number]) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert table() == before


class Waits(PrefillStrategy):
    """Stops in the middle of a prefill until it may go on."""

    layers = (1,)

    def __init__(self) -> None:
        self.inside, self.go_on = threading.Event(), threading.Event()

    def reduce(self, view) -> Reduction:
        self.inside.set()
        assert self.go_on.wait(30)
        return Reduction(torch.arange(5))


@pytest.mark.parametrize("call", ["generate", "forward"])
def test_two_calls_of_one_model_at_once_are_refused(call):
    model = tiny_llava()
    inputs, waits = prompt(model), Waits()
    answers = []

    def run():
        return greedy(model, inputs, 2)[1] if call == "generate" else model(**inputs).logits

    with TokenDropper(prefill=waits).attach(model):
        thread = threading.Thread(target=lambda: answers.append(run()))
        thread.start()
        assert waits.inside.wait(30)
        with pytest.raises(ValueError, match="another thread is running this model"):
            run()
        waits.go_on.set()
        thread.join()
        assert torch.equal(answers[0], run())  # the first was not disturbed, and the next works


def test_an_attention_function_registered_inside_a_context_stays():
    before = table()
    model = tiny_llava()

    def mine(*args, **kwargs):
        raise AssertionError("never called")

    with DROPPERS["fastv"].attach(model):
        ALL_ATTENTION_FUNCTIONS["sdpa"] = mine
    assert ALL_ATTENTION_FUNCTIONS["sdpa"] is mine
    del ALL_ATTENTION_FUNCTIONS["sdpa"]
    assert table() == before


def test_an_attention_function_of_the_user_is_put_back():
    model = tiny_llava()
    original = ALL_ATTENTION_FUNCTIONS["sdpa"]
    calls = []

    def mine(module, *args, **kwargs):
        calls.append(module)
        return original(module, *args, **kwargs)

    ALL_ATTENTION_FUNCTIONS["sdpa"] = mine
    try:
        with DROPPERS["fastv"].attach(model):
            greedy(model, prompt(model), 1)
        assert calls and ALL_ATTENTION_FUNCTIONS["sdpa"] is mine
    finally:
        del ALL_ATTENTION_FUNCTIONS["sdpa"]


def test_taps_of_one_module_are_called_from_the_last_to_the_first():
    model = tiny_llava()
    attention, order = model.model.language_model.layers[0].self_attn, []
    first = attention_tap({attention: lambda *_: order.append("first")})
    second = attention_tap({attention: lambda *_: order.append("second")})
    with first:
        second.__enter__()
        model(**prompt(model))
    assert order == ["second", "first"]
    model(**prompt(model))  # the first is closed, the second still open
    second.__exit__(None, None, None)
    assert order == ["second", "first", "second"]


def test_an_implementation_changed_inside_a_context_is_noticed():
    model = tiny_llava()
    with DROPPERS["fastv"].attach(model):
        model.set_attn_implementation("eager")
        with pytest.raises(ValueError, match="attention implementation was changed"):
            greedy(model, prompt(model), 1)


@pytest.mark.parametrize("name", ["fastv", "all_stages", "tome"])
def test_a_copy_made_inside_a_context_has_no_dropper(name):
    model = tiny_llava()
    inputs = prompt(model, flat=0.5)
    plain = greedy(model, inputs, 2)[1]
    with DROPPERS[name].attach(model) as run:
        expected = greedy(model, inputs, 2)[1]
        twin = copy.deepcopy({"model": model})["model"]
        assert torch.equal(greedy(twin, inputs, 2)[1], plain)
        ledgers = run.ledgers
        assert torch.equal(greedy(model, inputs, 2)[1], expected) and run.ledgers is not ledgers
        with pytest.raises(ValueError, match="already attached"), DROPPERS[name].attach(model):
            pass
    assert torch.equal(greedy(model, inputs, 2)[1], plain)
    for weight in twin.parameters():
        weight.data.zero_()
    assert not greedy(twin, inputs, 1)[1].any()
    assert not {"generate", "__deepcopy__"} & {*twin.__dict__, *model.__dict__}
    for module in twin.modules():
        hooks = [*module._forward_pre_hooks.values(), *module._forward_hooks.values()]
        assert not any("mustdrop" in type(hook).__module__ for hook in hooks)
    with DROPPERS[name].attach(twin):
        greedy(twin, inputs, 1)


def test_a_copied_part_ignores_the_hooks():
    model = tiny_llava()
    text = model.model.language_model
    embeds = torch.randn(1, 9, 32)
    expected = text(inputs_embeds=embeds).last_hidden_state
    with DROPPERS["all_stages"].attach(model):
        twin = copy.deepcopy(text)
        assert torch.equal(twin(inputs_embeds=embeds).last_hidden_state, expected)
        with pytest.raises(ValueError, match="the language model was called by itself"):
            text(inputs_embeds=embeds)
