"""Stage 3: cuts the KV cache once after the prefill, and gives decoding steps matching inputs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
from jaxtyping import Int
from torch import Tensor
from transformers import Cache

from mustdrop.engine.layout import Masks, Prompt, align, padding, take
from mustdrop.functional import stable_seed
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

    def __post_init__(self) -> None:
        self.fitting: dict[int, dict[str, Any]] = {}  # by the first of the layers of one layout
        self.rotary: dict[tuple | int, _Rotary] = {}
        self.layers: list[Any] = self.cache.layers  # all DynamicLayer, see refuse.unfit_prefill

    def compact(
        self, strategy: DecodeStrategy, prompts: Sequence[Prompt], keys: Callable[[int], int]
    ) -> None:
        """Cut every layer's cache to the tokens that the strategy keeps.

        The host waits for the device twice, for any number of layers and prompts: for how many
        tokens stay, and for which.

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
        index = torch.cat(unique).nonzero().flatten().split(counts)
        start = 0
        stays: dict[int, Tensor] = {}
        for row, part in zip(unique, index, strict=True):
            stays[id(row)] = part - start
            start += len(row)
        whole = {id(row) for row, count in zip(unique, counts, strict=True) if count == len(row)}
        cuts: dict[tuple[int, ...], _Cut] = {}  # layers between two drops share theirs
        for layer, line in enumerate(rows):
            same = tuple(map(id, line))
            if whole.issuperset(same):
                continue
            if same not in cuts:
                keep = [stays[row] for row in same]
                left = [
                    prompt.ledger.alive[layer][part]
                    for prompt, part in zip(prompts, keep, strict=True)
                ]
                cuts[same] = _Cut(
                    align(keep, self.pads[layer]), padding(list(map(len, keep))), left
                )
            self._cut(layer, cuts[same])
            for prompt, cached in zip(prompts, cuts[same].left, strict=True):
                prompt.ledger.cached[layer] = cached

    def _cut(self, layer: int, cut: "_Cut") -> None:
        cached = self.layers[layer]
        index = cut.index.to(cached.keys.device)
        cached.keys, cached.values = _take(cached.keys, index), _take(cached.values, index)
        self.pads[layer], self.lengths[layer] = cut.pads, index.shape[1]
        self.changed = True

    def before(self, layer: int, args: tuple, kwargs: dict[str, Any]) -> tuple | None:
        """Pre-hook of a decoder layer at a decoding step."""
        if not self.changed:
            return None
        first = self._alike[layer]
        if first not in self.fitting:
            self.fitting[first] = self._fit(first, args[0], kwargs)
        return args, {**kwargs, **self.fitting[first]}

    @cached_property
    def _alike(self) -> list[int]:
        """First layer whose cache has the same layout as that of each layer; read after cuts."""
        first: dict[tuple, int] = {}
        layouts = zip(self.pads, self.lengths, self.shifts, strict=True)
        return [
            first.setdefault((tuple(pads), length, id(shift)), layer)
            for layer, (pads, length, shift) in enumerate(layouts)
        ]

    def _fit(self, layer: int, hidden: Tensor, kwargs: dict[str, Any]) -> dict[str, Any]:
        """Arguments of a layer at a decoding step that fit its cache, which has yet to grow."""
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
        return fitting

    def _rotary(self, hidden: Tensor, ids: Int[Tensor, " batch"]) -> _Rotary:
        """Positions of the new tokens, and their rotary embeddings."""
        position_ids = ids[:, None].to(hidden.device)
        return position_ids, self.adapter.rotary(hidden, position_ids)

    def next_positions(self) -> Int[Tensor, "*axes batch 1"]:
        """Position of the token now being decoded, for callers that pass none."""
        cached = self.layers[0]
        new = cached.get_seq_length() - self.lengths[0]
        return (self.last + 1 + new)[..., None]

    def step(self) -> None:
        """Clear what only the last decoding step needed."""
        self.fitting, self.rotary = {}, {}


@dataclass(frozen=True, eq=False)
class _Cut:
    """Cut of one layer's cache.

    Attributes:
        index: Indices of the cached tokens that stay, padding included.
        pads: Padding in front of each prompt afterwards.
        left: Original positions of the tokens of each prompt that stay.
    """

    index: Int[Tensor, "batch tokens"]
    pads: list[int]
    left: list[Int[Tensor, " _"]]


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
        view.layer = layer
        keep = self.strategy.keep(view)
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
    heads = states.shape[1]
    of_heads = index[:, None].expand(-1, heads, -1).flatten(0, 1)
    return take(states.flatten(0, 1), of_heads).unflatten(0, (-1, heads))
