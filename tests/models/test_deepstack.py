"""States that a model adds between its layers (DeepStack) are dropped and mixed with the tokens.

Controls: a run in which they are forgotten, or added elsewhere, differs from the masked model.
"""

from dataclasses import replace

import pytest
import torch
from families import FAMILIES, OTHER_CLASSES
from family_droppers import FITTING
from family_errors import family_error
from models import greedy

from mustdrop import TokenDropper
from mustdrop.engine import entering
from mustdrop.masked import masked_logits, relative_error
from mustdrop.models import adapter_for
from mustdrop.models.qwen3_vl import Qwen3VLAdapter
from mustdrop.prefill.sparsevlm import SparseVLM
from mustdrop.prefill.uniform_grid import UniformGrid
from mustdrop.vision.average_pool import AveragePool
from mustdrop.vision.local_merge import LocalMerge

MADE = FAMILIES["qwen3_vl"]
take_added = Qwen3VLAdapter.take_added


def test_the_language_model_gets_nothing_to_add():
    model = MADE.model()
    inputs, calls = MADE.inputs(model, *MADE.prompts), []
    with TokenDropper().attach(model):
        hook = model.model.language_model.register_forward_pre_hook(
            lambda module, args, kwargs: calls.append(kwargs), with_kwargs=True
        )
        model(**inputs)
        hook.remove()
    assert calls[0]["deepstack_visual_embeds"] is None and calls[0]["visual_pos_masks"] is None


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "layers",
    [
        (-1,), (1,), (-1, 0, 1, 2), *(pytest.param((layer,), marks=SLOW) for layer in (0, 2, 3)),
    ],
)  # fmt: skip
def test_tokens_may_leave_before_and_after_each_layer_that_adds(layers):
    keep = tuple(range(12, 12 - 2 * len(layers), -2))
    dropper = TokenDropper(prefill=UniformGrid(12, layers[0]))
    if len(layers) > 1:
        dropper = TokenDropper(prefill=SparseVLM(keep=keep[1:], layers=layers[1:]))
    assert family_error("qwen3_vl", dropper) <= 1e-5


@pytest.mark.parametrize("block", [0, 1, pytest.param(2, marks=SLOW)])
@pytest.mark.parametrize("family", ["qwen3_vl", pytest.param("qwen3_vl_moe", marks=SLOW)])
def test_a_merge_in_the_encoder_mixes_what_earlier_blocks_gave(family, block):
    made = (FAMILIES | OTHER_CLASSES)[family]
    model = made.model()
    inputs = made.inputs(model, *made.prompts)
    merge = LocalMerge(0.2, 2, block, score="mean", edges="keep")
    with TokenDropper(merge).attach(model) as run:
        tokens, logits = greedy(model, inputs, steps=2)
    assert any((image.sizes > 1).any() for image in run.images)
    for number in range(len(tokens)):
        expected = masked_logits(model, run, inputs, tokens, number)
        assert relative_error(logits[number], expected) <= 1e-5


def forgotten(adapter, arguments):
    return take_added(adapter, arguments)[0], []


def of_the_next_token(adapter, arguments):
    arguments, added = take_added(adapter, arguments)
    return arguments, [states.roll(1, 1) for states in added]


def of_the_next_layer(adapter, arguments):
    arguments, added = take_added(adapter, arguments)
    return arguments, [*added[1:], added[0]]


@pytest.mark.parametrize("wrong", [forgotten, of_the_next_token, of_the_next_layer])
@pytest.mark.parametrize("name", ["fastv", pytest.param("divprune", marks=SLOW)])
def test_states_that_are_forgotten_or_misaligned_are_noticed(wrong, name, monkeypatch):
    monkeypatch.setattr(Qwen3VLAdapter, "take_added", wrong)
    assert family_error("qwen3_vl", FITTING[name], monkeypatch) > 1e-3


@pytest.mark.parametrize(
    "vision", [LocalMerge(0.2, 2, 0, score="mean", edges="keep"), AveragePool(4)]
)
def test_states_that_are_not_mixed_are_noticed(vision, monkeypatch):
    monkeypatch.setattr(entering, "_mix_added", lambda *_: None)
    assert family_error("qwen3_vl", TokenDropper(vision), monkeypatch) > 1e-3


def test_more_states_than_layers_are_refused(monkeypatch):
    model = MADE.model()
    depth = adapter_for(model).facts.depth

    def many(adapter, arguments):
        arguments, added = take_added(adapter, arguments)
        return arguments, added * depth

    monkeypatch.setattr(Qwen3VLAdapter, "take_added", many)
    with (
        replace(FITTING["fastv"]).attach(model),
        pytest.raises(ValueError, match="adds states after 18 of its layers"),
        torch.inference_mode(),
    ):
        model(**MADE.inputs(model, MADE.prompts[0]))
