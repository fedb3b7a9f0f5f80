"""Token merging inside the encoder: in every block the most similar pairs become one token."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from mustdrop.functional import bipartite_matching
from mustdrop.reduction import Reduction
from mustdrop.strategy import Count, ModelFacts, VisionStrategy, VisionView, require_fields


def merge_schedule(r: int | Sequence[int], blocks: int, inflect: float = 0.0) -> list[int]:
    """Pairs merged in each block: a constant, a straight line through it, or a list filled up by 0.

    Source: facebookresearch/ToMe, utils.py at af95e4b.

    Args:
        r: Pairs on average, or a list, the first for block 0.
        blocks: Encoder blocks.
        inflect: Slope of the line, in [-1, 1]: from r (1 - inflect) to r (1 + inflect).

    Raises:
        ValueError: If the line would go below 0, or the list is longer than the encoder.
    """
    if not isinstance(r, int):
        if len(r) > blocks:
            raise ValueError(f"this encoder has {blocks} blocks, got a list of {len(r)}")
        return [*r, *[0] * (blocks - len(r))]
    if not -1 <= inflect <= 1:
        raise ValueError(f"inflect must be in [-1, 1], got {inflect}")
    least = int(r * (1.0 - inflect))
    step = 2 * (r - least) / max(blocks - 1, 1)
    return [int(least + step * block) for block in range(blocks)]


def key_metric(keys: Float[Tensor, "heads all dim"]) -> Float[Tensor, "all dim"]:
    """What tokens are compared by: their keys, averaged over the heads."""
    return keys.float().mean(0)


@final
@dataclass(frozen=True)
class ToMe(VisionStrategy):
    """Merge the r most similar pairs of tokens between attention and MLP of every block.

    Tokens alternate between sets A and B; every a in A proposes its most similar b, by cosine of
    keys; the r best edges merge, x_b <- (s_b x_b + sum_a s_a x_a) / (s_b + sum_a s_a), and later
    attention is softmax(Q K^T / sqrt(d) + log s), with s the number of patches in a token.

    Source: ToMe, arXiv:2210.09461, Sec. 3.
    Differs from the authors' code: nothing in the rule (af95e4b, merge.py and patch/timm.py), but
        similarity is taken in float32. [CLS] never merges; survivors are those of A, then all of B,
        so that the raster order is lost, as there.

    Attributes:
        removed: Tokens that leave in each block, r, the first for block 0; blocks beyond the list
            merge nothing. At most half of the tokens leave, whatever r.
        proportional_attention: Whether later blocks add log s to their attention scores.
        weighted: Whether averages are weighted by s. With this and ``proportional_attention``
            false it is the port of ModelTC/LightCompress (9701d035), which forgets sizes.
    """

    merged_per_block: Sequence[Count]
    proportional_attention: bool = True
    weighted: bool = True
    inside_block = True

    def __post_init__(self) -> None:
        require_fields(self)
        if self.proportional_attention and not self.weighted:
            raise ValueError(
                "ToMe.weighted=False forgets how many patches a token has, "
                "which proportional_attention=True needs"
            )

    @property
    def places(self) -> tuple[int, ...]:
        return tuple(block for block, count in enumerate(self.merged_per_block) if count)

    @property
    def query_key_blocks(self) -> tuple[int, ...]:
        return self.places

    def check(self, facts: ModelFacts) -> None:
        last = max(self.places, default=0)
        if facts.block(last) > facts.feature_block:
            raise ValueError(
                f"the projector reads block {facts.feature_block}; what merges in block {last} "
                "would not reach it"
            )

    def reduce(self, view: VisionView) -> Reduction:
        assert isinstance(view.block, int)
        metric = key_metric(view.queries_keys(view.block)[1])
        cls, tokens = int(view.has_cls), len(view.sizes)
        first, second = len(metric[::2]), len(metric[1::2])
        view.count_macs(first * second * metric.shape[1])
        stay, leave, partner = bipartite_matching(
            metric, self.merged_per_block[view.block], view.has_cls
        )
        if not len(leave):
            return Reduction(torch.arange(tokens, device=metric.device), None, view.sizes)
        # [CLS] stands in front and always stays: it is the first of A, and no token of the view
        stay, leave = 2 * stay[cls:] - cls, 2 * leave - cls
        others = 2 * torch.arange(second, device=metric.device) + 1 - cls
        keep = torch.cat([stay, others])
        group = keep.new_empty(tokens)
        group[keep] = torch.arange(len(keep), device=keep.device)
        group[leave] = len(stay) + partner
        sizes = view.sizes.new_zeros(len(keep)).index_add_(0, group, view.sizes)
        weight = view.sizes if self.weighted else torch.ones_like(view.sizes)
        return Reduction.averages(keep, group, weight, sizes)
