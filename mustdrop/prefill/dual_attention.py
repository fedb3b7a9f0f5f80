"""DualAttention: drop vision tokens that neither the whole text nor any single word attends to."""

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
    """Drop a vision token if neither the text as a whole nor any text token attends to it.

    With A the attention from text to vision of the layer that has just run, averaged over heads,
    token j is dropped iff it is no key token and
      V_j = sum_t A[t, j] <= gamma * sum_j V_j   (Eq. 8-9, global)
      max_t A[t, j] < alpha                      (Eq. 10, individual)
    The text is all tokens after the last vision token.

    Source: MustDrop, arXiv:2411.10803, Sec. 3.3, Eq. 8-10; layers from the authors' code
        (modelling_sparse_llama.py:103).
    Differs from the authors' code: nothing, with ``strict=True`` and ``min_keep=0``, except that
        the code sums attention in the model's dtype, and we sum in float32.

    Attributes:
        gamma: Global threshold, a share of all text-to-vision attention, in [0, 1]; None uses the
            individual test only.
        alpha: Individual threshold, an attention weight in [0, 1]; None uses the global test only.
        layers: Layers after which tokens are dropped, counted from 0.
        strict: Whether a token at exactly the global threshold is kept (< in the code) or dropped
            (<= in Eq. 9).
        min_keep: Least number of vision tokens kept; where the thresholds keep fewer, the tokens
            of highest V_j fill up.
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
        return Reduction(self.decide(view)[0])

    def decide(self, view: PrefillView) -> tuple[Int[Tensor, " kept"], Float[Tensor, " vision"]]:
        """Indices of the tokens that stay, and V_j of all tokens."""
        attention = view.attention(rows="text").float().mean(0)
        share = attention.sum(0)
        view.log_score(share)
        return self.survivors(attention, share, view.protected), share

    def survivors(
        self,
        attention: Float[Tensor, "text vision"],
        share: Float[Tensor, " vision"],
        protected: Bool[Tensor, " vision"],
    ) -> Int[Tensor, " kept"]:
        """Indices of the tokens that stay; see :meth:`unimportant`.

        Only the maxima of ``attention`` over the text are read.
        """
        stay = ~self.unimportant(attention, share) | protected
        keep = stay.nonzero().flatten()
        fewest = min(self.min_keep, len(share))
        return keep if len(keep) >= fewest else top_keep(share, fewest, stay)

    def unimportant(
        self, attention: Float[Tensor, "text vision"], share: Float[Tensor, " vision"]
    ) -> Bool[Tensor, " vision"]:
        """Whether each token fails both criteria (or the only one in use).

        Args:
            attention: Attention A from text to vision.
            share: Sum V of the attention over the text.
        """
        # NaN attention counts as zero; otherwise one NaN would keep all tokens.
        share = share.masked_fill(share.isnan(), 0.0)
        attention = attention.masked_fill(attention.isnan(), 0.0)
        drop = torch.ones_like(share, dtype=torch.bool)
        if self.gamma is not None:
            limit = self.gamma * share.sum()
            drop = share < limit if self.strict else share <= limit
        if self.alpha is not None:
            drop = drop & (attention.amax(0) < self.alpha)
        return drop
