"""VisionZip: keep the tokens that [CLS] attends to most and merge the rest into a few."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated, final

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from mustdrop.budget import keep_for, part_of
from mustdrop.functional import complement, ranked, top_keep
from mustdrop.reduction import Reduction
from mustdrop.strategy import (
    Budget,
    Keep,
    VisionStrategy,
    VisionView,
    Within,
    require_fields,
)

DOMINANT_SHARE = 27 / 32  # of the authors' counts: 162 + 30, 108 + 20, 54 + 10


def contextual(
    metric: Float[Tensor, "rest dim"], count: int
) -> tuple[Int[Tensor, " targets"], Float[Tensor, "targets rest"]]:
    """Indices of ``count`` evenly spaced targets, and the weights that merge tokens into them.

    Every other token is assigned to the target of most similar ``metric``; a target becomes itself
    plus the mean of the tokens assigned to it.
    """
    rest = len(metric)
    targets = torch.arange(rest, device=metric.device)[:: max(1, rest // max(count, 1))][:count]
    mix = metric.new_zeros(count, rest)
    if count:
        unit = F.normalize(metric, dim=-1)
        group = (unit @ unit[targets].T).argmax(1)
        mix.scatter_(0, group[None], 1.0).index_fill_(1, targets, 0.0)
        mix = mix / mix.sum(1, keepdim=True).clamp_min(1.0)
        mix.scatter_(1, targets[:, None], 1.0)
    return targets, mix


@final
@dataclass(frozen=True)
class VisionZip(VisionStrategy):
    """Keep [CLS] and the tokens it attends to most; merge the others into evenly spaced tokens.

    Dominant: [CLS] and the D - 1 patches of highest attention, summed over heads, in raster order.
    Contextual: of the rest, C evenly spaced targets; every other token is assigned to the target of
    most similar key, averaged over heads, and a target becomes x_c + mean of its assigned tokens.

    Source: VisionZip, arXiv:2412.04467.
    Differs from the authors' code (dvlab-research/VisionZip at 3151f6df): nothing in the rule, but
        similarity and attention are summed in float32. As in the code, a target is added to the
        mean of its tokens, so a row of the mix sums to two. [CLS] takes the slot of the patch of
        highest attention among those that are neither dominant nor a target; where D + C exceeds
        the patches there is no such slot, and all patches are kept, without [CLS]. An encoder
        without [CLS] has D dominant patches.

    Attributes:
        dominant: Number of dominant tokens D, [CLS] included, or the budget of both counts; the
            ratio is then that of the authors, 27 to 5.
        contextual: Number of contextual tokens C, or the budget of both counts.
        block: Encoder block whose attention and keys are read.
    """

    dominant: Annotated[int, Within("1 or more, as [CLS] counts", 1.0)] | Budget
    contextual: Keep
    block: int = -2
    places = ("features",)
    normalised = False

    def __post_init__(self) -> None:
        require_fields(self)

    @property
    def cls_attention_blocks(self) -> tuple[int]:
        return (self.block,)

    @property
    def query_key_blocks(self) -> tuple[int]:
        return (self.block,)

    def counts(self, entered: int) -> tuple[int, int]:
        """Numbers of dominant and of contextual tokens of the only image of a prompt."""
        return self._parts(lambda budget: keep_for(budget, entered))

    def _parts(self, whole: Callable[[Budget], int]) -> tuple[int, int]:
        dominant, contextual = self.dominant, self.contextual
        if isinstance(dominant, Budget):
            dominant = max(round(whole(dominant) * DOMINANT_SHARE), 1)
        if isinstance(contextual, Budget):
            contextual = round(whole(contextual) * (1 - DOMINANT_SHARE))
        return dominant, contextual

    def plan(self, entered: int, blocks: int) -> "VisionZip":
        dominant, contextual = self.counts(entered)
        return replace(self, dominant=dominant, contextual=contextual)

    def left(self, entered: int) -> int:
        return min(sum(self.counts(entered)), entered)

    def reduce(self, view: VisionView) -> Reduction:
        score = view.cls_attention(self.block).float().sum(0)
        tokens = len(score)
        top, count = self._parts(lambda budget: part_of(budget, *view.span))
        if top + count > tokens:
            return Reduction(torch.arange(tokens, device=score.device), ascending=True)
        keys = view.queries_keys(self.block)[1]
        cls_token = int(view.has_cls)
        dominant = top_keep(score, top - cls_token)
        rest = complement(dominant, tokens)
        view.count_macs(len(rest) * count * keys.shape[-1])
        targets, merged = contextual(keys.float().mean(0)[cls_token:][rest], count)
        keep = torch.cat([dominant, rest[targets]])
        mix = torch.zeros(len(keep), tokens, device=score.device)
        mix[: len(dominant)].scatter_(1, dominant[:, None], 1.0)
        mix[len(dominant) :].index_copy_(1, rest, merged)
        if not cls_token:
            return Reduction(keep, mix, (mix > 0).to(view.sizes) @ view.sizes)
        unplaced = complement(keep, tokens)
        slot = unplaced[ranked(score[unplaced])[:1]]
        keep, mix = torch.cat([slot, keep]), torch.cat([mix.new_zeros(1, tokens), mix])
        cls = torch.zeros_like(mix[:, 0])
        cls[:1] = 1.0
        sizes = (mix > 0).to(view.sizes) @ view.sizes + cls
        return Reduction(keep, mix, sizes, cls)
