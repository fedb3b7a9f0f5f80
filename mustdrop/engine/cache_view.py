"""View of a prompt's KV cache in one layer, and the decisions that layers share."""

from collections.abc import Callable
from copy import copy

import torch
from torch import Tensor

from mustdrop.engine.layout import Prompt
from mustdrop.functional import stable_seed
from mustdrop.strategy import CacheView, DecodeStrategy


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


class SharedDecisions:
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
