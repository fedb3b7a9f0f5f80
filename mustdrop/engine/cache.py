"""Stage 3 at work: the KV cache is cut once after the prefill, and decoding gets what fits."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Int
from torch import Tensor
from transformers import Cache

from mustdrop.engine.layout import Masks, Prompt, align, padding
from mustdrop.functional import stable_seed
from mustdrop.models import ModelAdapter
from mustdrop.strategy import CacheView, DecodeStrategy

_Rotary = tuple[Tensor, tuple[Tensor, Tensor]]  # positions, and their rotary embeddings


@dataclass(eq=False)
class DecodePass:
    """What decoding needs to know of the prefill that filled the cache.

    Attributes:
        cache: The cache that the prefill filled.
        pads: Per layer, the padding in front of each prompt in the cache.
        lengths: Per layer, the cached tokens of the padded prompt batch.
        shifts: Per layer, how far each prompt's last token moved forward in rotary position; None
            where no position was counted anew.
        changed: Whether any layer's cache is not what the model itself would have made.
        positions: ``continue``: a new token follows the prompt's last one, as that layer knows it.
            ``cache_length``: its position is the layer's own cache length (the authors' code).
        first: Rotary position of each prompt's first token at its arrival.
        last: Rotary position of each prompt's last token at its arrival.
    """

    adapter: ModelAdapter
    cache: Cache
    masks: Masks
    pads: list[list[int]]
    lengths: list[int]
    shifts: list[Tensor | None]
    changed: bool
    positions: Literal["continue", "cache_length"]
    first: Int[Tensor, " batch"]
    last: Int[Tensor, " batch"]

    def __post_init__(self) -> None:
        self.rotary: dict[tuple | int, _Rotary] = {}
        self.layers: list[Any] = self.cache.layers  # all DynamicLayer, see refuse.unfit_prefill

    def compact(
        self, strategy: DecodeStrategy, prompts: Sequence[Prompt], keys: Callable[[int], int]
    ) -> None:
        """Cut every layer's cache to the tokens that the strategy keeps.

        The device is asked twice, however many layers and prompts there are: how many tokens stay,
        and which.

        Args:
            strategy: Stage 3.
            prompts: State of each prompt at the end of the prefill.
            keys: Returns the key for random draws of a prompt, given its number.
        """
        depth = len(self.lengths)
        seen = _Seen(strategy, depth, keys)
        rows = [
            [seen.stays(prompt, number, layer) for number, prompt in enumerate(prompts)]
            for layer in range(depth)
        ]
        unique = list({id(row): row for line in rows for row in line}.values())
        counts = torch.stack([row.sum() for row in unique]).tolist()
        index = torch.cat(unique).nonzero().flatten().split(counts)
        start = 0
        stays: dict[int, Tensor] = {}
        for row, part in zip(unique, index, strict=True):
            stays[id(row)] = part - start
            start += len(row)
        for layer, line in enumerate(rows):
            keep = [stays[id(row)] for row in line]
            if all(len(part) == len(row) for part, row in zip(keep, line, strict=True)):
                continue
            self._cut(layer, keep)
            for prompt, part in zip(prompts, keep, strict=True):
                prompt.ledger.cached[layer] = prompt.ledger.alive[layer][part]

    def _cut(self, layer: int, keep: Sequence[Tensor]) -> None:
        cached = self.layers[layer]
        index = align(keep, self.pads[layer]).to(cached.keys.device)
        cached.keys, cached.values = _take(cached.keys, index), _take(cached.values, index)
        self.pads[layer] = padding([len(part) for part in keep])
        self.lengths[layer] = index.shape[1]
        self.changed = True

    def before(self, layer: int, args: tuple, kwargs: dict[str, Any]) -> tuple | None:
        """Pre-hook of a decoder layer at a decoding step."""
        if not self.changed:
            return None
        hidden = args[0]
        past = self.layers[layer].get_seq_length()
        new = past - self.lengths[layer]
        ids = kwargs["position_ids"]
        fitting: dict[str, Any] = {
            "attention_mask": self.masks.decode(self.pads[layer], past + 1, hidden),
        }
        if self.positions == "cache_length":
            cached = tuple(self.lengths[layer] + new - pad for pad in self.pads[layer])
            if cached not in self.rotary:
                ids = self.first + torch.tensor(cached, device=self.first.device)
                self.rotary[cached] = self._rotary(hidden, ids)
            ids, fitting["position_embeddings"] = self.rotary[cached]
        elif (shift := self.shifts[layer]) is not None:
            if id(shift) not in self.rotary:  # layers between two drops share one tensor
                self.rotary[id(shift)] = self._rotary(hidden, ids[:, 0].to(shift.device) - shift)
            ids, fitting["position_embeddings"] = self.rotary[id(shift)]
        fitting["position_ids"] = None if self.masks.flash else ids
        return args, {**kwargs, **fitting}

    def _rotary(self, hidden: Tensor, ids: Int[Tensor, " batch"]) -> _Rotary:
        """Positions of the new tokens, and their rotary embeddings."""
        position_ids = ids[:, None].to(hidden.device)
        rotary_emb = self.adapter.language_model.rotary_emb
        return position_ids, rotary_emb(hidden, position_ids=position_ids)

    def next_positions(self) -> Tensor:
        """Original position of the token now being decoded, for callers that pass none."""
        cached = self.layers[0]
        new = cached.get_seq_length() - self.lengths[0]
        return (self.last + 1 + new)[:, None]

    def step(self) -> None:
        """Forget what only the last decoding step needed."""
        self.rotary = {}
        self.masks.memo = {}


class _Seen:
    """What a decode strategy decides, computed once for all layers that hold the same tokens."""

    def __init__(self, strategy: DecodeStrategy, depth: int, keys: Callable[[int], int]) -> None:
        self.strategy, self.depth, self.keys = strategy, depth, keys
        self.views: dict[tuple[int, int], tuple[Any, tuple[Any, ...]]] = {}
        self.rows: dict[tuple[int, int, int], tuple[Tensor, Tensor]] = {}

    def stays(self, prompt: Prompt, number: int, layer: int) -> Tensor:
        """Which of a prompt's tokens stay in a layer's cache; text always does."""
        ledger = prompt.ledger
        alive = ledger.alive[layer]
        same = (
            id(prompt),
            id(alive),
        )  # layers between two drops share one tensor, kept by the ledger
        if same not in self.views:
            where = prompt.vision_in(alive)
            last = torch.zeros_like(ledger.vision)
            last = last.index_fill_(0, ledger.alive[self.depth - 1], True)
            at = alive[where]
            survivors = len(ledger.alive[self.depth - 1]) - prompt.other_count
            self.views[same] = (where, (at, last[at], survivors, ledger.protected[at]))
        where, view = self.views[same]

        def generator(seed: int) -> torch.Generator:
            # "cache": not the draw of a prefill strategy after the same layer once more
            drawn = stable_seed(seed, self.keys(number), "cache", layer)
            return torch.Generator().manual_seed(drawn)

        keep = self.strategy.keep(
            CacheView(layer, self.depth, number, *view, get_generator=generator)
        )
        answer = (*same, id(keep))
        if (
            answer not in self.rows
        ):  # the answer is kept as well: ids are unique among the living alone
            row = torch.ones(len(alive), dtype=torch.bool, device=alive.device)
            row[where] = keep
            self.rows[answer] = (row, keep)
        return self.rows[answer][0]


def _take(states: Tensor, index: Tensor) -> Tensor:
    """Cached states [batch, heads, tokens, dim] by token index [batch, tokens]."""
    if len(states) == 1:
        return states.index_select(-2, index[0])
    wide = index[:, None, :, None].expand(-1, states.shape[1], -1, states.shape[-1])
    return states.gather(-2, wide)
