"""ClsAttention: protect the patches that stand out in the encoder's [CLS] attention."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, final

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mustdrop.functional import outliers, top_keep
from mustdrop.strategy import Share, VisionView, require_fields
from mustdrop.thresholds import ThresholdKeyTokens


@final
@dataclass(frozen=True)
class ClsAttention(ThresholdKeyTokens):
    """Protect the vision tokens that stand out in the [CLS] attention of one encoder block.

    a_cls = softmax(q_cls K^T / sqrt(d)),   O = {a_cls > mu},  mu an adaptive threshold.

    Source: MustDrop, arXiv:2411.10803, Sec. 3.2, Eq. 6-7.
    Differs from the authors' code: nothing, with ``rule="ratio"``, ``ratio=0.08``, ``heads="mean"``
    and ``block=-1`` (909afa5, clip_encoder.py:86-107). The paper does not say how mu adapts;
    ``outlier`` is our choice.

    Attributes:
        rule: ``outlier``: attention must exceed Q3 + ``mu`` x (Q3 - Q1) of its image (ours).
            ``threshold``: attention must exceed ``mu``. ``ratio``: the ceil(``ratio`` x tokens)
            tokens of highest attention are protected.
        mu: Interquartile ranges above the third quartile for ``outlier``, an attention weight for
            ``threshold``; not used by ``ratio``.
        ratio: Fraction of tokens protected by ``ratio``, in [0, 1].
        block: Encoder block whose attention is read.
        heads: Whether the mean or the maximum over heads is taken.
    """

    rule: Literal["outlier", "threshold", "ratio"] = "outlier"
    mu: float = 1.5
    ratio: Share = 0.08
    block: int = -1
    heads: Literal["mean", "max"] = "mean"

    def __post_init__(self) -> None:
        require_fields(self)

    @property
    def cls_attention_blocks(self) -> tuple[int]:
        return (self.block,)

    @property
    def thresholds(self) -> Mapping[str, tuple[float, float]]:
        # interquartile ranges or attention, depending on the rule
        return {"ratio": (0.0, 1.0)} if self.rule == "ratio" else {"mu": (0.0, 100.0)}

    def observe(self, view: VisionView) -> Float[Tensor, " tokens"]:
        """Attention of [CLS], a_cls, with the heads joined."""
        heads = view.cls_attention(self.block).float()
        return heads.mean(0) if self.heads == "mean" else heads.amax(0)

    def marked(self, observed: Float[Tensor, " tokens"]) -> Bool[Tensor, " tokens"]:
        """Key tokens O: whether each token's attention stands out in its image."""
        if self.rule == "ratio":
            key = top_keep(observed, math.ceil(self.ratio * len(observed)))
            return torch.zeros_like(observed, dtype=torch.bool).index_fill_(0, key, True)
        if self.rule == "threshold":
            return observed > self.mu
        return outliers(observed, self.mu)
