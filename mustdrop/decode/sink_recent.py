"""Sinks and recent tokens: the cache keeps the ends of the image, whatever it shows."""

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Bool
from torch import Tensor

from mustdrop.functional import top_keep
from mustdrop.strategy import CacheView, Count, DecodeStrategy, ModelFacts, require_fields


@final
@dataclass(frozen=True)
class SinkRecent(DecodeStrategy):
    """Keep in every layer's KV cache the first few vision tokens and the last others.

    Of a layer's cached vision tokens, in their order there, the first ``sinks`` and the last
    ``tokens - sinks`` stay; key tokens come first among them and all stay. Text is never cut. What
    output-aware decoding is to be compared with, at its own cost where ``tokens`` is None.

    Source: after StreamingLLM, arXiv:2309.17453, Sec. 3.2 (attention sinks and a rolling window),
        over vision tokens, once, when the prefill is over.
    Differs from the authors' code: positions in the cache are not counted anew.

    Attributes:
        sinks: Vision tokens kept at the front.
        tokens: Vision tokens kept in all, sinks counted; None: as many as were alive in the last
            layer.
        from_layer: The first layer whose cache is cut; the caches of earlier layers stay whole.
    """

    sinks: Count = 4
    tokens: Count | None = None
    from_layer: int = 2

    def __post_init__(self) -> None:
        require_fields(self)

    def check(self, facts: ModelFacts) -> None:
        if not 0 <= self.from_layer <= facts.depth:
            raise ValueError(f"from_layer must be in [0, {facts.depth}], got {self.from_layer}")

    def keep(self, view: CacheView) -> Bool[Tensor, " vision"]:
        count = len(view.positions)
        place = torch.arange(count, device=view.positions.device)
        if view.layer < self.from_layer:
            return place >= 0
        wanted = view.survivors if self.tokens is None else self.tokens
        score = torch.where(place < self.sinks, 2 * count - place, place).float()
        best = top_keep(score, min(wanted, count), view.protected)
        return view.protected.index_fill(0, best, True)
