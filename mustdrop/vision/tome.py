"""ToMe: merge the most similar pairs of tokens in every block of the vision encoder."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from mustdrop.budget import keep_for
from mustdrop.pairwise import bipartite_matching
from mustdrop.reduction import Reduction
from mustdrop.strategy import (
    Budget,
    Count,
    ModelFacts,
    VisionStrategy,
    VisionView,
    require_fields,
)


def merge_schedule(r: int | Sequence[int], blocks: int, inflect: float = 0.0) -> list[int]:
    """Number of pairs merged in each block: constant, linear, or a list filled up with 0.

    Source: facebookresearch/ToMe, utils.py at af95e4b.

    Args:
        r: Average number of pairs, or a list that starts with block 0.
        blocks: Number of encoder blocks.
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


def removed_per_block(left: int, entered: int, blocks: int) -> list[int]:
    """Number of tokens to merge in each block so that ``left`` remain, as even as possible.

    A block can merge at most half of its tokens; the last blocks merge fewer if the even share is
    more than that. With fewer tokens ``left`` than that allows, every block merges half.

    Args:
        left: Number of tokens after the last block.
        entered: Number of tokens of an image.
        blocks: Number of blocks.
    """
    left = min(max(left, -(-entered // 2**blocks)), entered)
    removed: list[int] = []
    for remaining in range(blocks, 0, -1):  # from the last block to the first
        removed.append(min((entered - left) // remaining, left))
        left += removed[-1]
    removed[-1] += entered - left
    return removed[::-1]


def key_metric(keys: Float[Tensor, "heads all dim"]) -> Float[Tensor, "all dim"]:
    """Vectors by which tokens are compared: their keys, averaged over the heads."""
    return keys.float().mean(0)


@final
@dataclass(frozen=True)
class ToMe(VisionStrategy):
    """Merge the r most similar pairs of tokens between attention and MLP of each encoder block.

    Tokens alternate between sets A and B; every a in A proposes its most similar b, by cosine of
    keys; the r best edges merge, x_b <- (s_b x_b + sum_a s_a x_a) / (s_b + sum_a s_a), and later
    attention is softmax(Q K^T / sqrt(d) + log s), with s the number of patches in a token.

    Source: ToMe, arXiv:2210.09461, Sec. 3.
    Differs from the authors' code: nothing in the rule (af95e4b, merge.py and patch/timm.py), but
        similarity is computed in float32. [CLS] never merges; the output lists the survivors of A,
        then all of B, so the raster order is lost, as in the code.

    Attributes:
        merged_per_block: Number of tokens removed in each block, r, starting with block 0; blocks
            beyond the list merge nothing. At most half of the tokens are removed, whatever r. Or
            the budget that the numbers follow from, for images of one size.
        proportional_attention: Whether later blocks add log s to their attention scores.
        weighted: Whether averages are weighted by s. With this and ``proportional_attention``
            false it is the port of ModelTC/LightCompress (9701d035), which ignores sizes.
    """

    merged_per_block: Sequence[Count] | Budget
    proportional_attention: bool = True
    weighted: bool = True
    inside_block = True

    def __post_init__(self) -> None:
        require_fields(self)
        if self.proportional_attention and not self.weighted:
            raise ValueError(
                "ToMe.proportional_attention=True needs the number of patches per token, "
                "which weighted=False ignores; got both"
            )

    @property
    def places(self) -> tuple[int, ...]:
        return tuple(block for block, count in enumerate(self._counts) if count)

    @property
    def query_key_blocks(self) -> tuple[int, ...]:
        return self.places

    @property
    def _counts(self) -> Sequence[int]:
        if isinstance(self.merged_per_block, Budget):
            raise ValueError(
                "ToMe must know its counts before work starts, got merged_per_block="
                f"{self.merged_per_block}: use plan(entered, blocks), or attach it to a model"
            )
        return self.merged_per_block

    def plan(self, entered: int, blocks: int) -> "ToMe":
        if not isinstance(self.merged_per_block, Budget):
            return self
        if not blocks:
            raise ValueError(
                "ToMe merges inside encoder blocks, but the encoder of this model runs whole: use "
                "a strategy that acts at 'projected' alone, or in the language model"
            )
        left = keep_for(self.merged_per_block, entered)
        return replace(self, merged_per_block=removed_per_block(left, entered, blocks))

    def fitted(self, facts: ModelFacts) -> "ToMe":
        if not isinstance(self.merged_per_block, Budget):
            return self
        if facts.grid is None:
            raise ValueError(
                "ToMe.merged_per_block follows a budget on images of one size only, and images of "
                "this model differ in size: give the counts per block"
            )
        if self.merged_per_block.share is None:
            raise ValueError(
                "ToMe.merged_per_block follows a share of each image, not a count of "
                f"{self.merged_per_block}: use plan(entered, blocks)"
            )
        return self.plan(facts.grid[0] * facts.grid[1], facts.feature_block + 1)

    def left(self, entered: int) -> int:
        for count in self._counts:
            entered -= min(count, entered // 2)
        return entered

    def check(self, facts: ModelFacts) -> None:
        last = max(self.places, default=0)
        if facts.block(last) > facts.feature_block:
            raise ValueError(
                f"ToMe must not merge after block {facts.feature_block}, whose output the "
                f"projector reads, got a merge in block {last}"
            )

    def reduce(self, view: VisionView) -> Reduction:
        assert isinstance(view.block, int)
        metric = key_metric(view.queries_keys(view.block)[1])
        cls, tokens = int(view.has_cls), len(view.sizes)
        first, second = len(metric[::2]), len(metric[1::2])
        view.count_macs(first * second * metric.shape[1])
        stay, leave, partner = bipartite_matching(metric, self._counts[view.block], view.has_cls)
        if not len(leave):
            return Reduction(torch.arange(tokens, device=metric.device), None, view.sizes)
        # [CLS] is the first of A and always stays, but it is no token of the view.
        stay, leave = 2 * stay[cls:] - cls, 2 * leave - cls
        others = 2 * torch.arange(second, device=metric.device) + 1 - cls
        keep = torch.cat([stay, others])
        group = keep.new_empty(tokens)
        group[keep] = torch.arange(len(keep), device=keep.device)
        group[leave] = len(stay) + partner
        sizes = view.sizes.new_zeros(len(keep)).index_add_(0, group, view.sizes)
        weight = view.sizes if self.weighted else torch.ones_like(view.sizes)
        return Reduction.averages(keep, group, weight, sizes)
