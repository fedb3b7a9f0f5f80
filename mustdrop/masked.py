"""The masked model: recomputes a prompt at full length, with masks in place of drops.

It uses no hooks and no cache. Every block and layer computes all tokens, tokens that the ledger
records as dropped are masked out, and each new token recomputes the whole sequence. Dropping is
correct only if its logits equal these. *Which* tokens stay is taken from the run, so the execution
is verified, not the selection.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mustdrop.engine.image import EncodedImage
from mustdrop.engine.run import DropRun
from mustdrop.ledger import TokenLedger
from mustdrop.models import ModelAdapter, adapter_for
from mustdrop.reduction import Reduction
from mustdrop.strategy import Place, VisionStrategy


def relative_error(actual: Float[Tensor, "*shape"], expected: Float[Tensor, "*shape"]) -> float:
    """Largest difference, relative to the largest expected value."""
    return float((actual - expected).abs().max() / expected.abs().max())


@torch.inference_mode()
def masked_logits(
    model: Any,
    run: DropRun,
    inputs: Mapping[str, Tensor],
    new_tokens: Int[Tensor, "batch new"],
    number: int = 0,
) -> Float[Tensor, "new vocab"]:
    """Logits of one prompt of a run, recomputed with masks.

    Args:
        model: Model without an attached dropper.
        run: Record of the run; its position rules are followed.
        inputs: Inputs of the run: input_ids, attention_mask, pixel_values.
        new_tokens: Tokens that the run decoded; row i of the result predicts token i.
        number: Index of the prompt.
    """
    adapter = adapter_for(model)
    ledger = run.ledgers[number]
    ids = inputs["input_ids"][number, -ledger.seq_len :]
    new = new_tokens[number, :-1]
    embed = model.get_input_embeddings()
    prompt = embed(ids)
    first = sum(_images(adapter, run.ledgers[:number]))
    for image in range(_images(adapter, [ledger])[0]):
        encoded = run.images[first + image] if run.images else None
        pixels = inputs["pixel_values"][first + image]
        cls, features = _encode(adapter, pixels, encoded, run.stages.vision)
        start = image * adapter.slots_per_image
        slots = ledger.vision.nonzero().flatten()[start : start + adapter.slots_per_image]
        prompt[slots[: len(cls)]] = cls.to(prompt)
        slots = slots[len(cls) :]
        if encoded is not None:
            source = ledger.sources[image]
            slots, features = source.slots, features[source.cells]
        prompt[slots] = features.to(prompt)
    hidden = _decode(adapter, run, number, torch.cat([prompt, embed(new)])[None])
    assert adapter.final_norm is not None  # a dropper refuses models without it
    rows = model.lm_head(adapter.final_norm(hidden))[0]
    return rows[ledger.seq_len - 1 :]


def _images(adapter: ModelAdapter, ledgers: Sequence[TokenLedger]) -> list[int]:
    return adapter.images_per_prompt([int(ledger.vision.sum()) for ledger in ledgers])


def _encode(
    adapter: ModelAdapter,
    pixels: Float[Tensor, "c h w"],
    image: EncodedImage | None,
    vision: VisionStrategy | None,
) -> tuple[Float[Tensor, "cls dim"], Float[Tensor, "patches dim"]]:
    """Encode one image: ([CLS] if the model keeps it, features on the full grid at their cells)."""
    encoder = adapter.encoders[0]
    facts = adapter.facts
    cls, patches = int(facts.has_cls), adapter.patches
    hidden = adapter.embed(encoder, pixels[None])
    steps: Mapping[Place, Reduction] = image.steps if image is not None else {}
    inside = vision is not None and vision.inside_block
    alive = torch.arange(patches, device=pixels.device)
    sizes = torch.ones(cls + patches, device=pixels.device)

    def replace(states: Tensor, location: Place, token: Tensor | None) -> Tensor:
        step = steps[location]
        kept = _replace(states, alive, step, token)
        if step.sizes is not None and vision is not None and vision.proportional_attention:
            sizes[cls + kept] = step.sizes.to(sizes)
        return kept

    for index, block in enumerate(adapter.blocks(encoder)[: facts.feature_block + 1]):
        if not inside and index - 1 in steps:
            alive = replace(hidden[0, cls:], index - 1, hidden[0, 0] if cls else None)
        seen = torch.ones(cls + patches, dtype=torch.bool, device=pixels.device)
        seen[cls:] = False
        seen[cls + alive] = True
        mask = _additive(seen.expand(cls + patches, -1), hidden) + sizes.log().to(hidden)
        if inside and index in steps:
            hidden = adapter.attend(block, hidden, mask)
            alive = replace(hidden[0, cls:], index, hidden[0, 0] if cls else None)
            norm, mlp = adapter.mlp(block)
            hidden = hidden + mlp(norm(hidden))
        else:
            hidden = block(hidden, mask)
    kept = int(adapter.keeps_cls)
    features = hidden[0, cls - kept :]
    if "features" in steps:
        alive = replace(features[kept:], "features", hidden[0, 0] if cls else None)
    features = adapter.projector(features[None])[0]
    if "projected" in steps:
        replace(features[kept:], "projected", features[0] if kept else None)
    return features[:kept], features[kept:]


def _decode(
    adapter: ModelAdapter,
    run: DropRun,
    number: int,
    hidden: Float[Tensor, "1 tokens dim"],
) -> Float[Tensor, "1 tokens dim"]:
    """Run all decoder layers over prompt and new tokens, at full length."""
    ledger, model = run.ledgers[number], adapter.language_model
    length, total = ledger.seq_len, hidden.shape[1]
    new = torch.arange(total - length, device=hidden.device)
    position = torch.arange(length, device=hidden.device)
    before = position
    for layer, module in enumerate(adapter.layers):
        alive = ledger.alive[layer]
        moved = not torch.equal(alive, before)
        if layer - 1 in run.mixed:
            moved |= run.mixed[layer - 1][number].mix is not None
            vision = before[ledger.vision[before]] if layer else _entered(ledger)
            _replace(hidden[0], vision, run.mixed[layer - 1][number])
        rule = run.stages.vision_positions if layer == 0 else run.stages.positions
        if rule == "compact" and moved:
            position = position.clone()
            position[alive] = torch.arange(len(alive), device=alive.device)
        follow = position[alive[-1]] + 1
        if run.stages.decode_positions == "cache_length" and _changed(ledger):
            follow = torch.tensor(len(ledger.cached[layer]), device=hidden.device)
        position_ids = torch.cat([position, follow + new])[None]
        rotary = model.rotary_emb(hidden, position_ids=position_ids)
        mask = _additive(_seen(ledger, layer, total), hidden)
        hidden = module(
            hidden, attention_mask=mask, position_embeddings=rotary, position_ids=position_ids
        )
        before = alive
    return hidden


def _entered(ledger: TokenLedger) -> Int[Tensor, " vision"]:
    """Vision tokens that remain after the encoder, in the order in which they entered."""
    if ledger.sources:
        return torch.cat([source.slots for source in ledger.sources])
    return ledger.vision.nonzero().flatten()


def _changed(ledger: TokenLedger) -> bool:
    return any(len(cached) != ledger.seq_len for cached in ledger.cached.values())


def _seen(ledger: TokenLedger, layer: int, total: int) -> Bool[Tensor, "tokens tokens"]:
    """Whether each token (row) may attend to each token (column) in a layer."""
    length, alive = ledger.seq_len, ledger.alive[layer]
    rank = torch.full((length,), total, device=alive.device)
    rank[alive] = torch.arange(len(alive), device=alive.device)
    # dropped tokens attend to themselves, so that no row is empty (NaN)
    seen = torch.eye(total, dtype=torch.bool, device=alive.device)
    is_alive = rank < total
    seen[:length, :length] |= (rank[None] <= rank[:, None]) & is_alive[:, None] & is_alive[None]
    seen[length:, ledger.cached[layer]] = True
    new = total - length
    seen[length:, length:] = torch.ones(new, new, dtype=torch.bool, device=alive.device).tril()
    return seen


def _additive(
    seen: Bool[Tensor, "rows tokens"], like: Float[Tensor, "1 n dim"]
) -> Float[Tensor, "1 1 rows tokens"]:
    mask = torch.zeros(seen.shape, dtype=like.dtype, device=like.device)
    return mask.masked_fill(~seen, torch.finfo(like.dtype).min)[None, None]


def _replace(
    states: Float[Tensor, "n dim"],
    alive: Int[Tensor, " before"],
    reduction: Reduction,
    cls: Float[Tensor, " dim"] | None = None,
) -> Int[Tensor, " after"]:
    """Write survivors to the positions of the tokens they descend from; return these positions."""
    kept = alive[reduction.keep]
    states[kept] = _survivors(states[alive], reduction, cls)
    return kept


def _survivors(
    states: Float[Tensor, "before dim"], reduction: Reduction, cls: Float[Tensor, " dim"] | None
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
        mixed += torch.einsum("a,d->ad", reduction.cls.double(), cls.double())
    return mixed.to(states)
