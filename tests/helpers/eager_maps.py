"""Attention maps of eager attention, and the tokens alive in a layer."""

import torch

from mustdrop import TokenDropper

GRID = 6


def maps(model, dropper: TokenDropper, inputs) -> tuple[list[torch.Tensor], object]:
    """Eager attention maps [heads, rows, columns] of every decoder layer, and the run."""
    with torch.inference_mode(), dropper.attach(model) as run:
        out = model(**inputs, output_attentions=True)
    return [attention[0] for attention in out.attentions], run


def vision_at(ledger, layer: int) -> list[int]:
    """Places of the vision tokens in the sequence at a layer's input."""
    return [i for i, at in enumerate(ledger.alive[layer].tolist()) if ledger.vision[at]]


def survivors(ledger, layer: int) -> list[int]:
    return [at for at in ledger.alive[layer + 1].tolist() if ledger.vision[at]]
