"""Stage 3: cuts the KV cache once after the prefill, and gives decoding steps matching inputs."""

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Int
from torch import Tensor
from transformers import Cache

from mustdrop.engine.layout import Masks, Prompt, align, padding
from mustdrop.functional import stable_seed, true_indices
from mustdrop.models import ModelAdapter
from mustdrop.strategy import CacheView, DecodeStrategy

_Rotary = tuple[Tensor, tuple[Tensor, Tensor]]  # positions, and their rotary embeddings


@dataclass(eq=False)
class DecodePass:
    """State that decoding needs from the prefill that filled the cache.

    Attributes:
        cache: Cache that the prefill filled.
        pads: Padding in front of each prompt in the cache, per layer.
        lengths: Number of cached tokens of the padded prompt batch, per layer.
        shifts: Distance by which each prompt's last token moved forward in rotary position, per
            layer; None where no positions were renumbered.
        changed: Whether any layer's cache differs from the one that the model itself would make.
        positions: Rule for the position of a new token. ``continue``: it follows the prompt's last
            token as positioned in that layer. ``cache_length``: it is the layer's own cache length
            (the authors' code).
        first: Rotary position of each prompt's first token before any drop.
        last: Rotary position of each prompt's last token before any drop; of coordinates, with all
            axes that the model hands on.
        largest: Largest coordinate of each prompt; None: positions are numbers.
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
    last: Int[Tensor, "*axes batch"]
    largest: Int[Tensor, " batch"] | None

    def __post_init__(self) -> None:
        self.rotary: dict[tuple | int, _Rotary] = {}
        self.layers: list[Any] = self.cache.layers  # all DynamicLayer, see refuse.unfit_prefill

    def compact(
        self, strategy: DecodeStrategy, prompts: Sequence[Prompt], keys: Callable[[int], int]
    ) -> None:
        """Cut every layer's cache to the tokens that the strategy keeps.

        The host waits for the device once, for any number of layers and prompts: for how many
        tokens stay.

        Args:
            strategy: Strategy of stage 3.
            prompts: State of each prompt at the end of the prefill.
            keys: Function from the index of a prompt to its key for random draws.
        """
        depth = len(self.lengths)
        seen = _Seen(strategy, depth, keys)
        rows = [
            [seen.stays(prompt, number, layer) for number, prompt in enumerate(prompts)]
            for layer in range(depth)
        ]
        unique = list({id(row): row for line in rows for row in line}.values())
        counts = torch.stack([row.sum() for row in unique]).tolist()
        stays = {
            id(row): true_indices(row, count) for row, count in zip(unique, counts, strict=True)
        }
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
        return position_ids, self.adapter.rotary(hidden, position_ids)

    def next_positions(self) -> Int[Tensor, "*axes batch 1"]:
        """Position of the token now being decoded, for callers that pass none.

        Raises:
            ValueError: If the model itself has two answers: ``generate`` goes on after the last
                token, but a call without positions after the largest coordinate of the prompt.
        """
        new = self.layers[0].get_seq_length() - self.lengths[0]
        if new == 0 and self.largest is not None and bool((self.largest > self.last[-1]).any()):
            raise ValueError(
                "position_ids must be given in a decoding loop on this prompt: its video reaches "
                "farther than its last token, so the model's forward would continue elsewhere than "
                "generate, which continues after the last token"
            )
        return (self.last + 1 + new)[..., None]

    def step(self) -> None:
        """Clear what only the last decoding step needed."""
        self.rotary = {}
        self.masks.memo = {}


class LayerCacheView(CacheView):
    """View of a prompt's cache in one layer."""

    def __init__(
        self, prompt: Prompt, number: int, layer: int, depth: int, keys: Callable[[int], int]
    ) -> None:
        ledger = prompt.ledger
        cached, last = ledger.alive[layer], ledger.alive[depth - 1]
        self.layer, self.depth, self.prompt_index, self._keys = layer, depth, number, keys
        self.index = prompt.vision_in(cached)  # of the vision tokens among all cached tokens
        self.positions = cached[self.index]
        self.survives = torch.zeros_like(ledger.vision).index_fill_(0, last, True)[self.positions]
        self.survivors = len(last) - prompt.other_count
        self.protected = ledger.protected[self.positions]

    def at(self, layer: int) -> "LayerCacheView":
        """View of another layer's cache that holds the same tokens; it shares the tensors."""
        view = copy(self)
        view.layer = layer
        return view

    def generator(self, seed: int) -> torch.Generator:
        # "cache" makes this draw differ from a prefill strategy's after the same layer
        drawn = stable_seed(seed, self._keys(self.prompt_index), "cache", self.layer)
        return torch.Generator().manual_seed(drawn)


class _Seen:
    """Decisions of a decode strategy, computed once for all layers that hold the same tokens."""

    def __init__(self, strategy: DecodeStrategy, depth: int, keys: Callable[[int], int]) -> None:
        self.strategy, self.depth, self.keys = strategy, depth, keys
        self.views: dict[tuple[int, int], LayerCacheView] = {}
        self.rows: dict[tuple[int, int, int], tuple[Tensor, Tensor]] = {}

    def stays(self, prompt: Prompt, number: int, layer: int) -> Tensor:
        """Whether each of a prompt's tokens stays in a layer's cache; text always does."""
        cached = prompt.ledger.alive[layer]
        # layers between two drops share one tensor, which the ledger keeps
        same = (id(prompt), id(cached))
        if same not in self.views:
            self.views[same] = LayerCacheView(prompt, number, layer, self.depth, self.keys)
        view = self.views[same]
        keep = self.strategy.keep(view.at(layer))
        decision = (*same, id(keep))
        if decision not in self.rows:
            row = torch.ones(len(cached), dtype=torch.bool, device=cached.device)
            row[view.index] = keep
            # ``keep`` is stored too, because ids are unique only among objects that exist
            self.rows[decision] = (row, keep)
        return self.rows[decision][0]


def _take(states: Tensor, index: Tensor) -> Tensor:
    """Select cached states [batch, heads, tokens, dim] by token index [batch, tokens]."""
    if len(states) == 1:
        return states.index_select(-2, index[0])
    wide = index[:, None, :, None].expand(-1, states.shape[1], -1, states.shape[-1])
    return states.gather(-2, wide)
