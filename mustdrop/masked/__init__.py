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

from mustdrop.engine.run import DropRun
from mustdrop.ledger import OFF_GRID, TokenLedger
from mustdrop.masked.encoder import additive, enter, replace_states
from mustdrop.masked.plain import plain_inputs
from mustdrop.models import ModelAdapter, adapter_for

__all__ = ["masked_logits", "masked_prompt_logits", "plain_inputs", "relative_error"]


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
        new_tokens: Tokens that followed the prompts: answers, and the text of later turns. Row i of
            the result predicts token i.
        number: Index of the prompt.
    """
    rows = _rows(model, run, inputs, new_tokens[number, :-1], number)
    return rows[run.ledgers[number].seq_len - 1 :]


@torch.inference_mode()
def masked_prompt_logits(
    model: Any, run: DropRun, inputs: Mapping[str, Tensor], number: int = 0
) -> Float[Tensor, "alive vocab"]:
    """Logits at the tokens of one prompt that reach the last layer, recomputed with masks.

    Args:
        model: Model without an attached dropper.
        run: Record of the run; its position rules are followed.
        inputs: Inputs of the run: input_ids, attention_mask, pixel_values.
        number: Index of the prompt.
    """
    ledger = run.ledgers[number]
    none = ledger.alive[0].new_zeros(0)
    return _rows(model, run, inputs, none, number)[ledger.alive[ledger.depth - 1]]


def _rows(
    model: Any,
    run: DropRun,
    inputs: Mapping[str, Tensor],
    new_tokens: Int[Tensor, " new"],
    number: int,
) -> Float[Tensor, "tokens vocab"]:
    """Logits at all tokens of a prompt and after it; those at dropped tokens mean nothing."""
    adapter = adapter_for(model)
    ledger = run.ledgers[number]
    given = plain_inputs(model, adapter, inputs)
    pad = given["inputs_embeds"].shape[1] - ledger.seq_len
    prompt = given["inputs_embeds"][number, pad:].clone()
    _, added = adapter.take_added(given)
    added = [states[number, pad:].clone() for states in added]
    if run.images:
        enter(adapter, run, number, prompt, added, given)
    new = model.get_input_embeddings()(new_tokens)
    positions = given.get("position_ids")
    if positions is not None:
        positions = positions[..., min(number, positions.shape[-2] - 1), pad:]
    masks = {} if adapter.causal else _masks(given.get("attention_mask"), number, pad)
    hidden = torch.cat([prompt, new])[None]
    hidden = _decode(adapter, run, number, hidden, positions, added, masks)
    assert adapter.final_norm is not None  # a dropper refuses models without it
    return model.lm_head(adapter.final_norm(hidden))[0]


def _decode(
    adapter: ModelAdapter,
    run: DropRun,
    number: int,
    hidden: Float[Tensor, "1 tokens dim"],
    positions: Int[Tensor, "*axes seq"] | None,
    added: Sequence[Float[Tensor, "prompt dim"]],
    masks: Mapping[str, Bool[Tensor, "prompt prompt"]],
) -> Float[Tensor, "1 tokens dim"]:
    """Run all decoder layers over prompt and new tokens, at full length.

    ``masks`` are the plain model's masks by the kind of layer; empty: attention is causal.
    """
    ledger, stages = run.ledgers[number], run.stages
    length, total = ledger.seq_len, hidden.shape[1]
    new = torch.arange(total - length, device=hidden.device)
    before = torch.arange(length, device=hidden.device)
    position = before if positions is None else positions.to(hidden.device)
    first = position[..., :1]
    for layer, module in enumerate(adapter.layers):
        alive = ledger.alive[layer]
        if 0 < layer <= len(added):
            hidden[0, :length] += added[layer - 1]
        moved = not torch.equal(alive, before)
        if layer - 1 in run.mixed:
            moved |= run.mixed[layer - 1][number].mix is not None
            vision = before[ledger.vision[before]] if layer else _entered(ledger)
            for states in (hidden[0], *added[layer:]):
                replace_states(states, vision, run.mixed[layer - 1][number])
        rule = stages.vision_positions if layer == 0 else stages.positions
        if rule == "compact" and moved and not adapter.facts.coordinates:
            position = position.clone()
            position[alive] = first + torch.arange(len(alive), device=alive.device)
        follow = position[..., alive[-1:]] + 1
        if stages.decode_positions == "cache_length" and _changed(ledger):
            follow = first + len(ledger.cached[layer])
        ids = torch.cat([position, follow + new], -1)[..., None, :]
        model_mask = masks.get(adapter.kind(layer), masks.get(""))
        mask = additive(_seen(ledger, layer, total, model_mask), hidden)
        text = ids if ids.dim() == 2 else ids[0]
        hidden = module(
            hidden, attention_mask=mask, position_ids=text,
            position_embeddings=adapter.rotary(hidden, ids, layer),
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


def _masks(given: Any, number: int, pad: int) -> dict[str, Bool[Tensor, "prompt prompt"]]:
    """What the plain model's masks let each token of a prompt see, by the kind of layer."""
    kinds = given if isinstance(given, Mapping) else {"": given}
    masks = {}
    for kind, mask in kinds.items():
        if mask is not None and mask.dim() == 4:
            rows = mask[min(number, len(mask) - 1), 0, pad:, pad:]
            masks[kind] = rows if rows.dtype == torch.bool else rows == 0
    return masks


def _seen(
    ledger: TokenLedger, layer: int, total: int, model_mask: Bool[Tensor, "prompt prompt"] | None
) -> Bool[Tensor, "tokens tokens"]:
    """Whether each token (row) may attend to each token (column) in a layer.

    ``model_mask`` is the plain model's mask of the prompt; None: attention is causal.
    """
    length, alive = ledger.seq_len, ledger.alive[layer]
    rank = torch.full((length,), total, device=alive.device)
    rank[alive] = torch.arange(len(alive), device=alive.device)
    # dropped tokens attend to themselves, so that no row is empty (NaN)
    seen = torch.eye(total, dtype=torch.bool, device=alive.device)
    is_alive = rank < total
    allowed = rank[None] <= rank[:, None] if model_mask is None else model_mask
    seen[:length, :length] |= allowed & is_alive[:, None] & is_alive[None]
    seen[length:, ledger.cached[layer]] = True
    new = total - length
    seen[length:, length:] = torch.ones(new, new, dtype=torch.bool, device=alive.device).tril()
    return seen
