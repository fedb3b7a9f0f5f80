"""ScheduledCache: cut each layer's KV cache to a given number of vision tokens (a control)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Bool
from torch import Tensor

from mustdrop.functional import top_keep
from mustdrop.strategy import CacheView, Count, DecodeStrategy, ModelFacts, require_fields


@final
@dataclass(frozen=True)
class ScheduledCache(DecodeStrategy):
    """Cut each layer's KV cache to a given number of vision tokens, last-layer survivors first.

    The other tokens are drawn at random. The draw depends only on seed, prompt, image and layer;
    see :class:`mustdrop.prefill.random.Random` for pixels.

    Source: control, ours; the decode stage that goes with :class:`ScheduledRandom`.

    Attributes:
        residents: Number of vision tokens that stay in each layer's cache, one list per prompt of
            the batch.
        seed: Seed of the random draw.
    """

    residents: Sequence[Sequence[Count]]
    seed: int = 0

    def __post_init__(self) -> None:
        require_fields(self)

    def check(self, facts: ModelFacts) -> None:
        lengths = sorted({len(counts) for counts in self.residents})
        if lengths != [facts.depth]:
            raise ValueError(
                f"residents must have a count for each of {facts.depth} layers, got {lengths}"
            )

    def keep(self, view: CacheView) -> Bool[Tensor, " vision"]:
        if view.prompt_index >= len(self.residents):
            raise ValueError(
                f"residents has counts for {len(self.residents)} prompts, but the batch has "
                f"a prompt of index {view.prompt_index}"
            )
        keep = self.residents[view.prompt_index][view.layer]
        if keep >= len(view.survives):
            return torch.ones_like(view.survives)
        drawn = torch.rand(len(view.survives), generator=view.generator(self.seed))
        stay = top_keep(drawn.to(view.survives.device, non_blocking=True) + view.survives, keep)
        return torch.zeros_like(view.survives).index_fill_(0, stay, True)
