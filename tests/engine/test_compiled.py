"""Decoder layers whose forward is compiled: hooks run outside it, so dropping stays exact."""

import pytest
import torch
from droppers import DROPPERS
from models import batch, greedy, prompt, tiny_llava

from mustdrop.masked import masked_logits, relative_error


@pytest.mark.slow
@pytest.mark.parametrize("before", [False, True], ids=["fresh", "after a plain call"])
@pytest.mark.parametrize("name", ["all_stages", "random_mid"])
def test_compiled_layers_equal_the_masked_model(name, before):
    """After a plain call the graphs exist already, made without a dropper."""
    torch._dynamo.reset()
    model, twin = tiny_llava(), tiny_llava()
    for layer in model.model.language_model.layers:
        layer.forward = torch.compile(layer.forward, backend="eager")
    inputs = batch(prompt(model, flat=0.5), prompt(model, before=9, after=9, images=2, seed=3))
    graphs = torch._dynamo.utils.counters["stats"]
    plain = greedy(model, inputs, 3) if before else None
    with DROPPERS[name].attach(model) as run:
        tokens, logits = greedy(model, inputs, 4)
    assert graphs["unique_graphs"] > 0, "nothing was compiled"
    for number in range(2):
        expected = masked_logits(twin, run, inputs, tokens, number)
        assert relative_error(logits[number], expected) <= 1e-5
    if plain is not None:
        assert relative_error(greedy(model, inputs, 3)[1], plain[1]) <= 1e-6
