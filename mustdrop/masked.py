"""The masked model: recomputes a prompt at full length, with masks in place of drops.

It uses no hooks and no cache. Every block and layer computes all tokens, tokens that the ledger
records as dropped are masked out, and each new token recomputes the whole sequence. Dropping is
correct only if its logits equal these. *Which* tokens stay is taken from the run, so the execution
is verified, not the selection.
"""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mustdrop.engine.image import EncodedImage
from mustdrop.engine.run import DropRun
from mustdrop.ledger import OFF_GRID, TokenLedger
from mustdrop.models import EncoderPart, ModelAdapter, adapter_for
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
    given = plain_inputs(model, adapter, inputs)
    pad = given["inputs_embeds"].shape[1] - ledger.seq_len
    prompt = given["inputs_embeds"][number, pad:].clone()
    if run.images:
        _enter(adapter, run, number, prompt, given)
    new = model.get_input_embeddings()(new_tokens[number, :-1])
    positions = given.get("position_ids")
    if positions is not None:
        positions = positions[..., min(number, positions.shape[-2] - 1), pad:]
    hidden = _decode(adapter, run, number, torch.cat([prompt, new])[None], positions)
    assert adapter.final_norm is not None  # a dropper refuses models without it
    rows = model.lm_head(adapter.final_norm(hidden))[0]
    return rows[ledger.seq_len - 1 :]


class _LanguageModelCalled(Exception):
    """Ends the plain model's call as soon as its language model was called."""


def plain_inputs(model: Any, adapter: ModelAdapter, inputs: Mapping[str, Tensor]) -> dict[str, Any]:
    """Arguments that the plain model hands to its language model, and the calls of its encoders."""
    given: dict[str, Any] = {"encoded": []}

    def text(module: nn.Module, args: tuple, kwargs: dict) -> None:
        given.update(kwargs)
        raise _LanguageModelCalled

    def encode(encoder: EncoderPart) -> Any:
        def hook(module: nn.Module, args: tuple, kwargs: dict) -> None:
            given["encoded"] += [(encoder, pixels) for pixels in encoder.pixels(args, kwargs)]

        return hook

    hooks = [adapter.language_model.register_forward_pre_hook(text, with_kwargs=True)]
    for encoder in adapter.encoders:
        hook = encode(encoder)
        hooks.append(encoder.module.register_forward_pre_hook(hook, with_kwargs=True))
    try:
        model.generate(**inputs, max_new_tokens=1, do_sample=False, pad_token_id=0)
    except _LanguageModelCalled:
        return given
    finally:
        for hook in hooks:
            hook.remove()
    raise AssertionError("the plain model did not call its language model")


def _enter(
    adapter: ModelAdapter,
    run: DropRun,
    number: int,
    prompt: Float[Tensor, "prompt dim"],
    given: Mapping[str, Any],
) -> None:
    """Write what stage 1 made of each image into the vision slots of a prompt's embeddings."""
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
            cls, features, alive = _encode(adapter, encoder, pixels, image, run.stages.vision)
            seen = position >= 0
            prompt[position[seen]] = features[seen].to(prompt)
            if len(cls):  # [CLS] stands in the slot before the image
                prompt[slots[shown[:1] - 1]] = cls.to(prompt)
        if "projected" in image.steps:
            alive = alive[position[alive] >= 0]
            _replace(prompt, position[alive], image.steps["projected"])


def _encode(
    adapter: ModelAdapter,
    encoder: EncoderPart,
    pixels: Tensor,
    image: EncodedImage,
    vision: VisionStrategy | None,
) -> tuple[Float[Tensor, "cls dim"], Float[Tensor, "cells dim"], Int[Tensor, " alive"]]:
    """Encode one image: ([CLS] if the model keeps it, features of all cells, cells alive)."""
    facts, steps = adapter.facts, image.steps
    cls, cells, unit = int(encoder.has_cls), image.total, encoder.unit**2
    hidden = encoder.embed(pixels[None])
    inside = vision is not None and vision.inside_block
    alive = torch.arange(cells, device=hidden.device)
    sizes = torch.ones(cls + cells, device=hidden.device)

    def replace(states: Tensor, location: Place, token: Tensor | None) -> Tensor:
        step = steps[location]
        kept = _replace(states.view(cells, -1), alive, step, token)
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
        mask = _additive(seen.expand(len(seen), -1), hidden) + weight.to(hidden)
        hidden = encoder.attend(index, hidden, mask, image.image.grid)
        if inside and index in steps:
            alive = replace(hidden[0, cls:], index, hidden[0, 0] if cls else None)
        norm, mlp = encoder.mlp(block)
        hidden = hidden + mlp(norm(hidden))
    kept = int(adapter.keeps_cls(encoder))
    features = hidden[:, cls - kept :].contiguous()
    if "features" in steps:
        alive = replace(features[0, kept:], "features", hidden[0, 0] if cls else None)
    features = adapter.project(features)
    return features[:kept], features[kept:], alive


def _decode(
    adapter: ModelAdapter,
    run: DropRun,
    number: int,
    hidden: Float[Tensor, "1 tokens dim"],
    positions: Int[Tensor, "*axes seq"] | None,
) -> Float[Tensor, "1 tokens dim"]:
    """Run all decoder layers over prompt and new tokens, at full length."""
    ledger, stages = run.ledgers[number], run.stages
    length, total = ledger.seq_len, hidden.shape[1]
    new = torch.arange(total - length, device=hidden.device)
    before = torch.arange(length, device=hidden.device)
    position = before if positions is None else positions.to(hidden.device)
    first = position[..., :1]
    for layer, module in enumerate(adapter.layers):
        alive = ledger.alive[layer]
        moved = not torch.equal(alive, before)
        if layer - 1 in run.mixed:
            moved |= run.mixed[layer - 1][number].mix is not None
            vision = before[ledger.vision[before]] if layer else _entered(ledger)
            _replace(hidden[0], vision, run.mixed[layer - 1][number])
        rule = stages.vision_positions if layer == 0 else stages.positions
        if rule == "compact" and moved and not adapter.facts.coordinates:
            position = position.clone()
            position[alive] = first + torch.arange(len(alive), device=alive.device)
        follow = position[..., alive[-1:]] + 1
        if stages.decode_positions == "cache_length" and _changed(ledger):
            follow = first + len(ledger.cached[layer])
        ids = torch.cat([position, follow + new], -1)[..., None, :]
        mask = _additive(_seen(ledger, layer, total), hidden)
        text = ids if ids.dim() == 2 else ids[0]
        hidden = module(
            hidden, attention_mask=mask, position_embeddings=adapter.rotary(hidden, ids),
            position_ids=text,
        )  # fmt: skip
        before = alive
    return hidden


def _entered(ledger: TokenLedger) -> Int[Tensor, " vision"]:
    """Vision tokens that remain after the encoder, in the order in which they entered."""
    slots = ledger.vision.nonzero().flatten()
    if not ledger.sources:
        return slots
    entered = torch.cat([source.slots for source in ledger.sources])
    off_grid = slots[ledger.cells == OFF_GRID]
    # newlines and the like belong to no image; with them, all tokens are in sequence order
    return torch.cat([entered, off_grid]).sort().values if len(off_grid) else entered


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
