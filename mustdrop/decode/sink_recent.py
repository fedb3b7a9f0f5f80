"""SinkRecent: decode only on the first few and the last vision tokens (after StreamingLLM)."""

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
    """Keep in each layer's KV cache the first few and the last vision tokens.

    Of a layer's cached vision tokens, in cache order, the first ``sinks`` and the last
    ``tokens - sinks`` stay. Key tokens have priority and all stay. Text is never cut. It is the
    control of output-aware decoding, at the same cost where ``tokens`` is None.

    Source: after StreamingLLM, arXiv:2309.17453, Sec. 3.2 (attention sinks and a rolling window),
        applied to vision tokens once, after the prefill.
    Differs from the authors' code: positions in the cache are not renumbered.

    Attributes:
        sinks: Number of vision tokens kept at the front.
        tokens: Number of vision tokens kept in all, sinks included; None: as many as reached the
            last layer.
        from_layer: First layer whose cache is cut; the caches of earlier layers stay whole.
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
        index = torch.arange(count, device=view.positions.device)
        if view.layer < self.from_layer:
            return index >= 0
        wanted = view.survivors if self.tokens is None else self.tokens
        score = torch.where(index < self.sinks, 2 * count - index, index).float()
        best = top_keep(score, min(wanted, count), view.protected)
        return view.protected.index_fill(0, best, True)
