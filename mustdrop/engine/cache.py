"""Stage 3: cuts the KV cache once after the prefill, and gives later tokens matching inputs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
from jaxtyping import Int
from torch import Tensor
from transformers import Cache

from mustdrop.engine.cache_view import SharedDecisions
from mustdrop.engine.layout import Masks, Prompt, align, padding, take
from mustdrop.functional import true_indices
from mustdrop.models import ModelAdapter
from mustdrop.strategy import DecodeStrategy

_Rotary = tuple[Tensor, tuple[Tensor, Tensor]]  # positions, and their rotary embeddings


@dataclass(eq=False)
class DecodePass:
    """State that decoding needs from the prefill that filled the cache.

    Attributes:
        cache: Cache that the prefill filled.
        ids: Tokens of the padded prompts.
        input_pads: Padding in front of each prompt before any drop.
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
        beams: Whether the rows are beams of beam search.
    """

    adapter: ModelAdapter
    cache: Cache
    masks: Masks
    ids: Int[Tensor, "batch seq"]
    input_pads: list[int]
    pads: list[list[int]]
    lengths: list[int]
    shifts: list[Tensor | None]
    changed: bool
    positions: Literal["continue", "cache_length"]
    first: Int[Tensor, " batch"]
    last: Int[Tensor, "*axes batch"]
    largest: Int[Tensor, " batch"] | None
    beams: bool = False

    def __post_init__(self) -> None:
        self.fitting: dict[int, dict[str, Any]] = {}  # by the first of the layers of one layout
        self.rotary: dict[tuple, _Rotary] = {}
        self.layers: list[Any] = self.cache.layers  # all DynamicLayer, see refuse.unfit_cache

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
        seen = SharedDecisions(strategy, depth, keys)
        rows = [
            [seen.stays(prompt, number, layer) for number, prompt in enumerate(prompts)]
            for layer in range(depth)
        ]
        unique = list({id(row): row for line in rows for row in line}.values())
        counts = torch.stack([row.sum() for row in unique]).tolist()
        stays = {
            id(row): true_indices(row, count) for row, count in zip(unique, counts, strict=True)
        }
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

    def require_lengths(self) -> None:
        """Check that every layer's cache has the length that was recorded.

        Raises:
            RuntimeError: If it has another one.
        """
        lengths = [layer.get_seq_length() for layer in self.layers]
        if lengths != self.lengths:
            raise RuntimeError(f"the KV cache holds {lengths} tokens per layer, not {self.lengths}")

    def repeat(self, count: int) -> None:
        """Repeat each prompt's cache and state, for ``count`` sequences of each prompt."""
        self.cache.batch_repeat_interleave(count)
        self.ids = self.ids.repeat_interleave(count, 0)
        self.pads = [[pad for pad in pads for _ in range(count)] for pads in self.pads]
        self.input_pads = [pad for pad in self.input_pads for _ in range(count)]
        shifts = {id(shift): shift for shift in self.shifts if shift is not None}
        # layers between two drops go on sharing one tensor
        longer = {key: shift.repeat_interleave(count) for key, shift in shifts.items()}
        self.shifts = [None if shift is None else longer[id(shift)] for shift in self.shifts]
        self.first = self.first.repeat_interleave(count)
        self.last = self.last.repeat_interleave(count, -1)

    @property
    def later(self) -> int:
        """Number of tokens in the cache that follow each prompt."""
        return self.layers[0].get_seq_length() - self.lengths[0]

    @property
    def seen(self) -> int:
        """Number of tokens, padding included, that the cache has seen."""
        return self.ids.shape[1] + self.later

    def before(self, layer: int, args: tuple, kwargs: dict[str, Any]) -> tuple | None:
        """Pre-hook of a decoder layer that gets tokens after the prefill."""
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
            first.setdefault((tuple(pads), length, id(shift), self.adapter.kind(layer)), layer)
            for layer, (pads, length, shift) in enumerate(layouts)
        ]

    def _fit(self, layer: int, hidden: Tensor, kwargs: dict[str, Any]) -> dict[str, Any]:
        """Arguments of a layer that fit its cache, to which the new tokens are yet to be added."""
        new, past = hidden.shape[1], self.layers[layer].get_seq_length()
        ids, pads, kind = kwargs["position_ids"], self.pads[layer], self.adapter.kind(layer)
        fitting: dict[str, Any] = {
            "attention_mask": self.masks.decode(pads, past + new, new, hidden),
        }
        if self.positions == "cache_length":
            cached = tuple(past - pad for pad in pads)
            key = (kind, cached)
            if key not in self.rotary:
                numbers = torch.tensor(cached)
                last = self.first + numbers.to(self.first.device, non_blocking=True)
                self.rotary[key] = self._rotary(hidden, _counted(last, new), layer)
            ids, fitting["position_embeddings"] = self.rotary[key]
        elif (shift := self.shifts[layer]) is not None:
            key = (kind, id(shift))  # layers between two drops share one tensor
            if key not in self.rotary:
                moved = ids.to(shift.device) - shift[:, None]
                self.rotary[key] = self._rotary(hidden, moved, layer)
            ids, fitting["position_embeddings"] = self.rotary[key]
        fitting["position_ids"] = None if self.masks.flash else ids
        return fitting

    def _rotary(self, hidden: Tensor, ids: Int[Tensor, "batch new"], layer: int) -> _Rotary:
        """Positions of the new tokens, and their rotary embeddings in a layer."""
        position_ids = ids.to(hidden.device)
        return position_ids, self.adapter.rotary(hidden, position_ids, layer)

    def next_positions(self, new: int) -> Int[Tensor, "*axes batch new"]:
        """Positions of the next ``new`` tokens, for callers that pass none.

        Raises:
            ValueError: If the model itself has two answers: ``generate`` goes on after the last
                token, but a call without positions after the largest coordinate of the prompt.
        """
        largest = self.largest if self.later == 0 else None
        if largest is not None and bool((largest > self.last[-1]).any()):
            raise ValueError(
                "position_ids must be given in a decoding loop on this prompt: its video reaches "
                "farther than its last token, so the model's forward would continue elsewhere than "
                "generate, which continues after the last token"
            )
        return _counted(self.last + 1 + self.later, new)

    def step(self) -> None:
        """Clear what only the last step needed."""
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


def _counted(first: Int[Tensor, "*axes batch"], new: int) -> Int[Tensor, "*axes batch new"]:
    """Positions of ``new`` tokens, counted from the first one's."""
    return first[..., None] + torch.arange(new, device=first.device)


def _take(states: Tensor, index: Tensor) -> Tensor:
    """Select cached states [batch, heads, tokens, dim] by token index [batch, tokens]."""
    if len(states) == 1:
        return states.index_select(-2, index[0])
    heads = states.shape[1]
    of_heads = index[:, None].expand(-1, heads, -1).flatten(0, 1)
    return take(states.flatten(0, 1), of_heads).unflatten(0, (-1, heads))
