"""Pictures of the tokens that a method keeps of one image of the embedded model.

The brightness of a patch is the share of decoder layers in which a token carries it, in steps so
that equal pictures give equal bytes. Knows nothing about pages.
"""

import io
from dataclasses import dataclass
from functools import cache
from typing import Any, cast

import numpy as np
import torch
from matplotlib.collections import LineCollection

from analysis.figures.pictures import blend, mask_of, outline
from analysis.figures.style import BLACK, BLUE, GONE, sheet, styled
from analysis.records.fates import fates
from mustdrop import TokenDropper, TokenLedger, presets
from mustdrop.budget import Floor
from mustdrop.pocket import load, prompt, sample
from mustdrop.presets.compose import composed, resolved
from mustdrop.presets.from_budget import budget_floor

MODEL, BENCHMARK, BUDGET = "pocket", "pocket_vqa", 64
SPLIT, INDEX = "crowded_test", 3
MOST_OUTLINES = 80  # beyond this number of merged groups, outlines would cover the image
MIXED = 0.5  # brightness of a patch that tokens in other places share, where tokens share patches
SIZE, DPI = 1.9, 120  # inches, dots per inch


@dataclass(frozen=True)
class Kept:
    """What a method kept of the image.

    Attributes:
        entered: Number of vision tokens that entered each decoder layer.
        average: Executed average.
        png: Picture as a file.
    """

    entered: list[int]
    average: float
    png: bytes


def built(name: str) -> tuple[TokenDropper, Floor | None]:
    """Dropper of a method preset at the budget of the pictures, or at its floor; and that floor.

    The floor is the least executed average of the method if the budget is below it, else None.

    Raises:
        ValueError: If the preset does not exist, or lacks a threshold for the embedded model.
    """
    floor = budget_floor(resolved(composed(f"method={name}", f"budget=t{BUDGET}")))
    budget = BUDGET if floor is None else round(float(floor))  # tokens: all images have one size
    return presets.load(name, model=MODEL, benchmark=BENCHMARK, budget=budget), floor


@cache
def setting() -> tuple:
    """Model, question and inputs of the picture."""
    torch.set_num_threads(1)
    model, processor = load()
    question = sample(SPLIT, INDEX)
    text = prompt(processor, question.question)
    inputs = cast(Any, processor)(text=text, images=question.image, return_tensors="pt")
    return model, question, inputs


def kept(dropper: TokenDropper) -> Kept:
    """Run the prefill of one prompt with a dropper and draw what is left of its image."""
    model, question, inputs = setting()
    marks = {name: getattr(question, name) for name in ("target_patches", "object_patches")}
    with dropper.attach(model, [marks]) as run, torch.inference_mode():
        model(**inputs)
    ledger = run.ledgers[0]
    return Kept(ledger.vision_per_layer(), ledger.counts().executed_average, _draw(ledger))


@styled
def _draw(ledger: TokenLedger) -> bytes:
    _, question, _ = setting()
    life = fates(ledger)
    picture = np.asarray(question.image.convert("RGB"), dtype=float) / 255
    shares = presence(ledger)
    figure = sheet(SIZE, SIZE, layout=None)
    ax = figure.add_axes((0, 0, 1, 1))
    height, width = picture.shape[:2]
    shown = blend(picture, GONE, np.round(0.88 * (1 - shares), 3))
    ax.imshow(shown, interpolation="nearest", extent=(0, width, height, 0))
    groups = [] if overlapping(ledger) else [mask_of(group, life.grid) for group in life.merged]
    if len(groups) > MOST_OUTLINES:
        groups = []
    target = np.asarray(question.target_patches, dtype=bool).reshape(life.grid)
    for masks, colour in ((groups, BLUE), ([target], BLACK)):
        for mask in masks:
            edges = outline(mask) * (width / mask.shape[1], height / mask.shape[0])
            ax.add_collection(LineCollection(list(edges), colors="white", linewidths=1.6))
            ax.add_collection(LineCollection(list(edges), colors=colour, linewidths=0.8))
    ax.set(xlim=(0, width), ylim=(height, 0))
    ax.axis("off")
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=DPI, metadata={"Software": None})
    return buffer.getvalue()


def overlapping(ledger: TokenLedger) -> bool:
    """Whether some patch is mixed into several tokens."""
    return bool((ledger.image_tokens()[2].sum(0) > 1).any())


def presence(ledger: TokenLedger) -> np.ndarray:
    """Share of the decoder layers in which some token carries each patch, [rows, columns].

    Where tokens share patches, a patch without a token in its place counts ``MIXED``.
    """
    (rows, columns), slots, carries = ledger.image_tokens()
    weights = carries.double()
    if overlapping(ledger):
        (source,) = ledger.sources
        weights *= MIXED
        weights[torch.arange(len(source.cells)), source.cells] = 1.0
    total = np.zeros(rows * columns)
    for layer in range(ledger.depth):
        present = weights[torch.isin(slots, ledger.alive[layer])]
        total += present.amax(0).numpy() if len(present) else 0.0
    return (total / ledger.depth).reshape(rows, columns)
