"""A cache of given sizes: the control whose every layer decodes on as many tokens as another's."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Bool
from torch import Tensor

from mustdrop.functional import stable_seed, top_keep
from mustdrop.strategy import CacheView, Count, DecodeStrategy, ModelFacts, require_fields


@final
@dataclass(frozen=True)
class Scheduled(DecodeStrategy):
    """Cut each layer's KV cache to a given count: survivors of the last layer first, then a draw.

    Source: control, ours; the decode stage beside :class:`ScheduledRandom`.

    Attributes:
        residents: Per prompt of the batch, the vision tokens that stay in each layer's cache.
        seed: Which draw among equals; the same in all prompts, as a cache view knows no image.
    """

    residents: Sequence[Sequence[Count]]
    seed: int = 0

    def __post_init__(self) -> None:
        require_fields(self)

    def check(self, facts: ModelFacts) -> None:
        found = sorted({len(counts) for counts in self.residents})
        if found != [facts.depth]:
            raise ValueError(
                f"residents must have a count for each of {facts.depth} layers, got {found}"
            )

    def keep(self, view: CacheView) -> Bool[Tensor, " vision"]:
        if view.number >= len(self.residents):
            raise ValueError(
                f"residents tell of {len(self.residents)} prompts, but prompt {view.number} is here"
            )
        keep = self.residents[view.number][view.layer]
        if keep >= len(view.survives):
            return torch.ones_like(view.survives)
        drawn = torch.Generator().manual_seed(stable_seed(self.seed, view.layer))
        score = torch.rand(len(view.survives), generator=drawn).to(view.survives.device)
        stay = top_keep(score + view.survives, keep)
        return torch.zeros_like(view.survives).index_fill_(0, stay, True)
