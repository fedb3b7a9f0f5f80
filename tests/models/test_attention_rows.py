"""The attention that strategies read equals eager attention, for every family."""

from dataclasses import dataclass, field

import pytest
import torch
from families import FAMILIES

from mustdrop import PrefillStrategy, Reduction, TokenDropper

LAYERS = (0, 1, 2)


@dataclass(frozen=True, eq=False)
class ReadsAttention(PrefillStrategy):
    """Reads attention in all forms, and keeps all tokens."""

    layers = LAYERS
    read: dict = field(default_factory=dict)

    def reduce(self, view) -> Reduction:
        self.read[view.prompt_index, view.layer] = {
            "text": view.attention(rows="text"), "last": view.attention(rows="last"),
            "received": view.received_attention(), "next": view.attention(of="next"),
        }  # fmt: skip
        return Reduction(torch.arange(len(view)))


@pytest.mark.parametrize("family", FAMILIES)
def test_rows_and_received_attention_are_those_of_eager_attention(family):
    made = FAMILIES[family]
    model = made.model("eager")
    inputs = made.inputs(model, *made.prompts)
    strategy = ReadsAttention()
    with torch.inference_mode():
        maps = model(**inputs, output_attentions=True).attentions
        with TokenDropper(prefill=strategy).attach(model) as run:
            model(**inputs)
    for number, ledger in enumerate(run.ledgers):
        vision = ledger.vision.nonzero()[:, 0]
        first = int(vision[-1]) + 1
        for layer in LAYERS:
            now, after = (
                maps[index][number, :, -ledger.seq_len :, -ledger.seq_len :]
                for index in (layer, layer + 1)
            )
            expected = {
                "text": now[:, first:, vision], "last": now[:, -1:, vision],
                "received": now.mean((0, 1))[vision], "next": after[:, first:, vision],
            }  # fmt: skip
            for name, values in strategy.read[number, layer].items():
                assert torch.allclose(values, expected[name], atol=1e-6), (layer, name)
