"""Attention that a strategy reads is what eager attention computes, in every family and layer."""

from dataclasses import dataclass, field
from functools import cache

import pytest
import torch
from families import FAMILIES, OTHER_CLASSES
from models import greedy

from mustdrop import Reduction, TokenDropper
from mustdrop.engine.prefill_view import PrefillState
from mustdrop.prefill.uniform_grid import UniformGrid
from mustdrop.strategy import PrefillStrategy, PrefillView

MADE = FAMILIES | OTHER_CLASSES


@dataclass(frozen=True)
class Reader(PrefillStrategy):
    """Drops nothing, or some tokens after layer 0; reads attention after layers 0 to 2."""

    drops: bool = False
    layers: tuple[int, ...] = (0, 1, 2)
    read: dict = field(default_factory=dict)

    def reduce(self, view: PrefillView) -> Reduction:
        self.read[view.layer, view.prompt_index] = {
            "text": view.attention("text"),
            "last": view.attention("last"),
            "some": view.attention(torch.tensor([1, 0])),
            "received": view.received_attention(),
            "next": view.attention("last", of="next"),
        }
        if self.drops and view.layer == 0:
            return UniformGrid(9).reduce(view)
        return Reduction(torch.arange(len(view)), ascending=True)


@cache
def model_of(family: str):
    return MADE[family].model("eager")


def worst_error(family: str, drops: bool = False, layers: tuple[int, ...] = (0, 1, 2)) -> float:
    """Largest difference of a weight from the model's own map."""
    model, made, reader = model_of(family), MADE[family], Reader(drops)
    inputs = made.inputs(model, *made.prompts)
    with TokenDropper(prefill=reader).attach(model) as run, torch.inference_mode():
        maps = model.generate(
            **inputs, max_new_tokens=1, do_sample=False, output_attentions=True,
            return_dict_in_generate=True,
        ).attentions[0]  # fmt: skip
    worst = 0.0
    for (layer, number), read in reader.read.items():
        ledger = run.ledgers[number]
        own = {at: maps[at][number] for at in (layer, layer + 1)}
        for at in own:
            own[at] = own[at][:, -len(ledger.alive[at]) :, -len(ledger.alive[at]) :]
        vision = ledger.vision[ledger.alive[layer]].nonzero().flatten()
        last = int(ledger.vision.nonzero()[-1])  # rows of Pixtral's images have text between them
        first = int((ledger.alive[layer] <= last).sum())
        expected = {
            "text": own[layer][:, first:][..., vision],
            "last": own[layer][:, -1:][..., vision],
            "some": own[layer][:, [first + 1, first]][..., vision],
            "received": own[layer].float().mean((0, 1))[vision],
        }
        if len(ledger.alive[layer]) == len(ledger.alive[layer + 1]):
            expected["next"] = own[layer + 1][:, -1:][..., vision]
        for name, weights in expected.items():
            if layer in layers:
                worst = max(worst, float((read[name] - weights).abs().max()))
    return worst


SLOW = pytest.mark.slow
USUAL = ("gemma3", "paligemma", "qwen3_vl")


@pytest.mark.parametrize("drops", [pytest.param(False, marks=SLOW), True])
@pytest.mark.parametrize(
    "family",
    [pytest.param(family, marks=() if family in USUAL else SLOW) for family in MADE],
)
def test_attention_rows_equal_eager_attention(family, drops):
    assert 0 < worst_error(family, drops) <= 1e-6


@pytest.mark.parametrize("family", ["gemma3", "paligemma"])
def test_rows_that_are_taken_for_causal_are_noticed(family, monkeypatch):
    """Control: the run sees masks that are not causal, but the rows are computed without them."""
    monkeypatch.setattr(PrefillState, "seen", lambda *_: None)
    assert worst_error(family) > 1e-3


def test_a_dropper_that_reads_changes_nothing():
    model, made = model_of("gemma3"), MADE["gemma3"]
    inputs = made.inputs(model, *made.prompts)
    plain = greedy(model, inputs, 2)[1]
    with TokenDropper(prefill=Reader()).attach(model):
        assert torch.equal(greedy(model, inputs, 2)[1], plain)
