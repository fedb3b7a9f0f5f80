"""The masked model's stage 1: encoders at full length, with masks in place of drops."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mustdrop.engine.image import EncodedImage
from mustdrop.engine.run import DropRun
from mustdrop.models import EncoderPart, ModelAdapter
from mustdrop.reduction import Reduction
from mustdrop.strategy import Place, VisionStrategy


def enter(
    adapter: ModelAdapter,
    run: DropRun,
    number: int,
    prompt: Float[Tensor, "prompt dim"],
    added: Sequence[Float[Tensor, "prompt dim"]],
    given: Mapping[str, Any],
) -> None:
    """Write what stage 1 made of each image into the vision slots of a prompt's embeddings.

    ``added``, the states that the model adds after its first layers, are written as well.
    """
    ledger = run.ledgers[number]
    slots = ledger.vision.nonzero().flatten()
    images = [image for image in run.images if image.image.prompt == number]
    first = 0
    for image in sorted(images, key=lambda image: image.image.order):
        shown = ((ledger.cells >= first) & (ledger.cells < first + image.total)).nonzero().flatten()
        position = torch.full((image.total,), -1, device=slots.device)
        position[ledger.cells[shown] - first] = slots[shown]
        first += image.total
        alive = torch.arange(image.total, device=slots.device)
        if image.steps.keys() - {"projected"}:
            encoder, pixels = given["encoded"][image.image.encoded]
            seen = position >= 0
            cls, streams, alive = _encode(adapter, encoder, pixels, image, run.stages.vision, seen)
            for states, features in zip((prompt, *added), streams, strict=True):
                states[position[seen]] = features[seen].to(states)
            if len(cls):  # [CLS] stands in the slot before the image
                prompt[slots[shown[:1] - 1]] = cls.to(prompt)
        if "projected" in image.steps:
            alive = alive[position[alive] >= 0]
            for states in (prompt, *added):
                replace_states(states, position[alive], image.steps["projected"])


def _encode(
    adapter: ModelAdapter,
    encoder: EncoderPart,
    pixels: Tensor,
    image: EncodedImage,
    vision: VisionStrategy | None,
    seen_cells: Bool[Tensor, " cells"],
) -> tuple[Float[Tensor, "cls dim"], list[Float[Tensor, "cells dim"]], Int[Tensor, " alive"]]:
    """Encode one image: ([CLS] if the model keeps it, states of all cells, cells alive).

    The states are the features, and what is projected of some blocks for later layers. They are
    dropped and merged among the cells that have a slot in the prompt.
    """
    facts, steps = adapter.facts, image.steps
    cls, cells, unit = int(encoder.has_cls), image.total, encoder.unit**2
    hidden = encoder.embed(pixels[None], image.image.grid)
    inside = vision is not None and vision.inside_block
    alive = torch.arange(cells, device=hidden.device)
    sizes = torch.ones(cls + cells, device=hidden.device)
    added: list[Tensor] = []

    def replace(states: Tensor, location: Place, token: Tensor | None) -> Tensor:
        step = steps[location]
        kept = replace_states(states.view(cells, -1), alive, step, token)
        for later in added:
            replace_states(later, alive, step)
        if step.sizes is not None and vision is not None and vision.proportional_attention:
            sizes[cls + kept] = step.sizes.to(sizes)
        return kept

    for index, block in enumerate(encoder.blocks[: facts.feature_block + 1]):
        if not inside and index - 1 in steps:
            alive = replace(hidden[0, cls:], index - 1, hidden[0, 0] if cls else None)
        seen = torch.ones(cls + cells, dtype=torch.bool, device=hidden.device)
        seen[cls:] = False
        seen[cls + alive] = True
        repeats = torch.tensor(cls * [1] + cells * [unit], device=hidden.device)
        seen, weight = (part.repeat_interleave(repeats) for part in (seen, sizes.log()))
        mask = additive(seen.expand(len(seen), -1), hidden) + weight.to(hidden)
        hidden = encoder.attend(index, hidden, mask, image.image.grid)
        if inside and index in steps:
            alive = replace(hidden[0, cls:], index, hidden[0, 0] if cls else None)
        hidden = encoder.complete(block, hidden)
        if index in encoder.added_projectors:
            added.append(encoder.added_projectors[index](hidden[0]))
    if adapter.feature_norm is not None:
        hidden = adapter.feature_norm(hidden)
    kept = int(adapter.keeps_cls(encoder))
    features = hidden[:, cls - kept :].contiguous()
    if encoder.gathered:
        features = encoder.gather(features)
    if "features" in steps:
        alive = alive[seen_cells[alive]]
        alive = replace(features[0, kept:], "features", hidden[0, 0] if cls else None)
    features = adapter.project(features)
    return features[:kept], [features[kept:], *added], alive


def additive(
    seen: Bool[Tensor, "rows tokens"], like: Float[Tensor, "1 n dim"]
) -> Float[Tensor, "1 1 rows tokens"]:
    """Mask that is added to attention scores: the least number where a token is not seen."""
    mask = torch.zeros(seen.shape, dtype=like.dtype, device=like.device)
    return mask.masked_fill(~seen, torch.finfo(like.dtype).min)[None, None]


def replace_states(
    states: Float[Tensor, "n dim"],
    alive: Int[Tensor, " before"],
    reduction: Reduction,
    cls: Float[Tensor, " _"] | None = None,
) -> Int[Tensor, " after"]:
    """Write survivors to the positions of the tokens they descend from; return these positions."""
    kept = alive[reduction.keep]
    states[kept] = _survivors(states[alive], reduction, cls)
    return kept


def _survivors(
    states: Float[Tensor, "before dim"], reduction: Reduction, cls: Float[Tensor, " _"] | None
) -> Float[Tensor, "after dim"]:
    """Survivors of a reduction, computed from its weights alone.

    The engine does this with other code (:meth:`Reduction.__call__`), which must not be used here.
    """
    if reduction.mix is None:
        return states[reduction.keep]
    weights = reduction.mix.double().to(states.device)
    mixed = torch.einsum("ab,bd->ad", weights, states.double())
    if reduction.cls is not None:
        assert cls is not None
        cls = cls.repeat(states.shape[1] // len(cls))  # for each patch of a cell
        mixed += torch.einsum("a,d->ad", reduction.cls.double(), cls.double())
    return mixed.to(states)
