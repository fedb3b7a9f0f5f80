"""DualAttention: drop vision tokens that neither the whole text nor any single word attends to."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mustdrop.functional import top_keep
from mustdrop.strategy import Count, Layers, PrefillView, Share, Weight, require_fields
from mustdrop.thresholds import ThresholdPrefill


def share_and_peak(attention: Float[Tensor, "text vision"]) -> Float[Tensor, "2 vision"]:
    """Sum V over the text, and maximum over the text, of the attention to each vision token.

    NaN counts as zero; otherwise one NaN would keep all tokens.
    """
    values = torch.stack([attention.sum(0), attention.nan_to_num(0.0).amax(0)])
    return values.nan_to_num_(0.0)


@final
@dataclass(frozen=True)
class DualAttention(ThresholdPrefill):
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

    @property
    def thresholds(self) -> Mapping[str, tuple[float, float]]:
        return {"gamma": (1.0e-5, 0.5), "alpha": (1.0e-5, 1.0)}

    @property
    def traced(self) -> Mapping[str, float]:
        given = {"gamma": self.gamma, "alpha": self.alpha}
        return {name: value for name, value in given.items() if value is not None}

    def observe(self, view: PrefillView) -> Float[Tensor, "2 vision"]:
        values = share_and_peak(view.attention(rows="text").float().mean(0))
        view.log_score(values[0])
        return values

    def stays(
        self, observed: Float[Tensor, "2 vision"], protected: Bool[Tensor, " vision"]
    ) -> Bool[Tensor, " vision"]:
        share, _ = observed
        stay = ~self.unimportant(observed) | protected
        # Those that stay rank first, so that others fill up only where they are too few.
        return stay.index_fill(0, top_keep(share, min(self.min_keep, len(share)), stay), True)

    def unimportant(self, observed: Float[Tensor, "2 vision"]) -> Bool[Tensor, " vision"]:
        """Whether each token fails both criteria (or the only one in use).

        Args:
            observed: Result of :func:`share_and_peak`.
        """
        share, peak = observed
        unseen = None if self.alpha is None else peak < self.alpha
        if self.gamma is None:
            assert unseen is not None
            return unseen
        limit = self.gamma * share.sum()
        drop = share < limit if self.strict else share <= limit
        return drop if unseen is None else drop & unseen
