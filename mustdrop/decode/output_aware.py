"""OutputAware: decode only on the vision tokens that reached the last layer."""

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Bool
from torch import Tensor

from mustdrop.strategy import CacheView, DecodeStrategy, ModelFacts, require_fields


@final
@dataclass(frozen=True)
class OutputAware(DecodeStrategy):
    """Keep in each layer's KV cache only the vision tokens that reached the last layer.

    Source: MustDrop, arXiv:2411.10803, Sec. 3.4 and Sec. 1 ("after the second layer").
    Differs from the authors' code: nothing, with ``from_layer=2`` (909afa5,
    modelling_sparse_llama.py:300-325).

    Attributes:
        from_layer: First layer whose cache is cut; the caches of earlier layers stay whole.
    """

    from_layer: int = 2

    def __post_init__(self) -> None:
        require_fields(self)

    def check(self, facts: ModelFacts) -> None:
        if not 0 <= self.from_layer <= facts.depth:
            raise ValueError(f"from_layer must be in [0, {facts.depth}], got {self.from_layer}")

    def keep(self, view: CacheView) -> Bool[Tensor, " vision"]:
        return view.survives if view.layer >= self.from_layer else torch.ones_like(view.survives)
