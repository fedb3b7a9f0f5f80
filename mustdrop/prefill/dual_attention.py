"""Dual-attention filtering: drop what neither the whole text nor any single word looks at."""

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mustdrop.functional import top_keep
from mustdrop.reduction import Reduction
from mustdrop.strategy import (
    Count,
    Layers,
    PrefillStrategy,
    PrefillView,
    Share,
    Weight,
    require_fields,
)


@final
@dataclass(frozen=True)
class DualAttention(PrefillStrategy):
    """Drop a vision token iff it matters neither globally nor to any individual text token.

    With A the attention from text to vision of the layer that has just run, averaged over heads,
    token j leaves iff it is no key token and
      V_j = sum_t A[t, j] <= gamma * sum_j V_j   (Eq. 8-9, global)
      max_t A[t, j] < alpha                      (Eq. 10, individual)
    The text is what follows the last vision token.

    Source: MustDrop, arXiv:2411.10803, Sec. 3.3, Eq. 8-10; layers from the authors' code
        (modelling_sparse_llama.py:103).
    Differs from the authors' code: nothing, with ``strict=True`` and ``min_keep=0``; attention is
        summed in the model's dtype there, in float32 here.

    Attributes:
        gamma: Global threshold, a share of all text-to-vision attention, in [0, 1]; None: the
            individual test alone.
        alpha: Individual threshold, an attention weight in [0, 1]; None: the global test alone.
        layers: Acts after these layers, counted from 0.
        strict: Whether a token at exactly the global threshold stays (the code's <) or leaves (Eq.
            9's <=).
        min_keep: Fewest vision tokens left; where the thresholds leave fewer, the others of highest
            V_j stay too.
    """

    gamma: Share | None
    alpha: Weight | None
    layers: Layers = (2, 6, 10, 14)
    strict: bool = False
    min_keep: Count = 1

    def __post_init__(self) -> None:
        require_fields(self)
        if self.gamma is None and self.alpha is None:
            raise ValueError(
                "DualAttention.gamma and alpha are both None: give at least one threshold"
            )

    def reduce(self, view: PrefillView) -> Reduction:
        attention = view.attention(rows="text").float().mean(0)
        share = attention.sum(0)
        view.log_score(share)
        return Reduction(self.survivors(attention, share, view.protected))

    def survivors(
        self,
        attention: Float[Tensor, "text vision"],
        share: Float[Tensor, " vision"],
        protected: Bool[Tensor, " vision"],
    ) -> Int[Tensor, " kept"]:
        """The tokens that stay; see :meth:`unimportant`. Of ``attention`` only maxima are read."""
        stay = ~self.unimportant(attention, share) | protected
        keep = stay.nonzero().flatten()
        fewest = min(self.min_keep, len(share))
        return keep if len(keep) >= fewest else top_keep(share, fewest, stay)

    def unimportant(
        self, attention: Float[Tensor, "text vision"], share: Float[Tensor, " vision"]
    ) -> Bool[Tensor, " vision"]:
        """The tokens that both criteria (or the one in use) let go.

        Args:
            attention: A, the attention from text to vision.
            share: V, its sum over the text.
        """
        # A token whose attention is NaN gets none; otherwise one of them would keep all tokens.
        share = share.masked_fill(share.isnan(), 0.0)
        attention = attention.masked_fill(attention.isnan(), 0.0)
        drop = torch.ones_like(share, dtype=torch.bool)
        if self.gamma is not None:
            limit = self.gamma * share.sum()
            drop = share < limit if self.strict else share <= limit
        if self.alpha is not None:
            drop = drop & (attention.amax(0) < self.alpha)
        return drop
