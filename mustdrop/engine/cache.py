"""Stage 3 at work: the KV cache is cut once, when the prefill is over; decoding steps get what fits it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import Cache

from mustdrop.engine.layout import Masks, Prompt, align, padding
from mustdrop.models import ModelAdapter
from mustdrop.strategy import CacheView, DecodeStrategy


@dataclass(eq=False)
class DecodePass:
    """What decoding needs to know of the prefill that filled the cache.

    Attributes:
        cache: The cache that the prefill filled.
        pads: Per layer, the padding in front of each prompt in the cache.
        lengths: Per layer, the cached tokens of the padded prompt batch.
        shifts: Per layer, how far each prompt's last token moved forward in rotary position.
        changed: Whether any layer's cache is not what the model itself would have made.
        positions: ``continue``: a new token follows the prompt's last one, as that layer knows it.
            ``cache_length``: its position is the layer's own cache length (the authors' code).
        prompt_lengths: Tokens of each prompt, padding left out.
    """

    adapter: ModelAdapter
    cache: Cache
    masks: Masks
    pads: list[list[int]]
    lengths: list[int]
    shifts: list[list[int]]
    changed: bool
    positions: Literal["continue", "cache_length"]
    prompt_lengths: list[int]

    def __post_init__(self) -> None:
        self.rotary: dict[tuple, tuple[Tensor, Tensor]] = {}
        self.memo: dict[int, tuple[Tensor, ...]] = {}

    def compact(self, strategy: DecodeStrategy, prompts: Sequence[Prompt]) -> None:
        """Cut every layer's cache to the tokens that the strategy keeps.

        The device is asked twice, however many layers and prompts there are: how many tokens stay, and which.
        """
        depth = len(self.lengths)
        self.memo = {}
        rows: list[Tensor] = []
        for layer in range(depth):
            rows += [self._stays(strategy, prompt, layer, depth) for prompt in prompts]
        counts = torch.stack([row.sum() for row in rows]).tolist()
        index = torch.cat(rows).nonzero().flatten()
        offsets = torch.tensor([0] + [len(row) for row in rows[:-1]]).cumsum(0).tolist()
        stays = [
            part - offset for part, offset in zip(index.split(counts), offsets, strict=True)
        ]
        for layer, cached in enumerate(self.cache.layers):
            number = slice(layer * len(prompts), (layer + 1) * len(prompts))
            if all(len(row) == count for row, count in zip(rows[number], counts[number], strict=True)):
                continue
            assert cached.keys is not None and cached.values is not None
            gather = align(stays[number], self.pads[layer]).to(cached.keys.device)
            cached.keys, cached.values = _cut(cached.keys, gather), _cut(cached.values, gather)
            self.pads[layer] = padding(counts[number])
            self.lengths[layer] = gather.shape[1]
            self.changed = True
            for prompt, stay in zip(prompts, stays[number], strict=True):
                prompt.ledger.cached[layer] = prompt.ledger.alive[layer][stay]

    def _stays(self, strategy: DecodeStrategy, prompt: Prompt, layer: int, depth: int) -> Tensor:
        """Which of a prompt's tokens stay in a layer's cache; text always does."""
        ledger = prompt.ledger
        alive = ledger.alive[layer]
        if id(alive) not in self.memo:  # layers between two drops share one tensor, kept by the ledger
            vision = len(alive) - prompt.other
            is_text = ledger.vision[alive].logical_not()
            where = is_text.to(torch.uint8).argsort(stable=True)[:vision]
            last = torch.zeros_like(ledger.vision).index_fill_(0, ledger.alive[depth - 1], True)
            at = alive[where]
            self.memo[id(alive)] = (where, at, last[at], ledger.protected[at])
        where, *seen = self.memo[id(alive)]
        stays = torch.ones(len(alive), dtype=torch.bool, device=alive.device)
        return stays.index_copy_(0, where, strategy.keep(CacheView(layer, depth, *seen)))

    def before(self, layer: int, args: tuple, kwargs: dict[str, Any]) -> tuple | None:
        """Pre-hook of a decoder layer at a decoding step."""
        if not self.changed:
            return None
        hidden = args[0]
        past = self.cache.layers[layer].get_seq_length()
        new = past - self.lengths[layer]
        given = kwargs["position_ids"]
        fitting: dict[str, Any] = {
            "attention_mask": self.masks.decode(self.pads[layer], past + 1, hidden),
            "position_ids": None,
        }
        if self.positions == "cache_length":
            own = tuple(self.lengths[layer] + new - pad for pad in self.pads[layer])
            fitting["position_embeddings"] = self._rotary(("at", own), hidden, None)
        elif any(self.shifts[layer]):
            shift = tuple(self.shifts[layer])
            fitting["position_embeddings"] = self._rotary(("back", shift), hidden, given)
        return args, {**kwargs, **fitting}

    def _rotary(self, key: tuple, hidden: Tensor, given: Tensor | None) -> tuple[Tensor, Tensor]:
        if key not in self.rotary:
            ids = torch.tensor(key[1], device=hidden.device)[:, None]
            ids = ids if given is None else given - ids
            self.rotary[key] = self.adapter.language_model.rotary_emb(hidden, position_ids=ids)
        return self.rotary[key]

    def next_positions(self) -> Tensor:
        """Original position of the token now being decoded, for callers that pass none."""
        cached = self.cache.layers[0]
        assert cached.keys is not None
        new = cached.get_seq_length() - self.lengths[0]
        lengths = torch.tensor(self.prompt_lengths, device=cached.keys.device)
        return (lengths + new)[:, None]

    def step(self) -> None:
        """Forget what only the last decoding step needed."""
        self.rotary = {}
        self.masks.memo = {}


def _cut(states: Tensor, index: Tensor) -> Tensor:
    """Cached states [batch, heads, tokens, dim] by token index [batch, tokens]."""
    if len(states) == 1:
        return states.index_select(-2, index[0])
    wide = index[:, None, :, None].expand(-1, states.shape[1], -1, states.shape[-1])
    return states.gather(-2, wide)
