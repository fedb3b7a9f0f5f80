"""VisPruner: keep half of the tokens by [CLS] attention and half by removing duplicates."""

from dataclasses import dataclass
from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from mustdrop.fixed_counts import KeepPerImage
from mustdrop.functional import ranked
from mustdrop.pairwise import block_rows
from mustdrop.reduction import Reduction
from mustdrop.strategy import Keep, Share, VisionView, require_fields

PER_STEP = 8  # duplicates removed at a time


def without_duplicates(
    unit: Float[Tensor, "tokens dim"], listed: Int[Tensor, " listed"], keep: int
) -> Int[Tensor, " kept"]:
    """Reduce the listed tokens to ``keep`` by removing those most similar to another.

    Each step splits the list into its even and its odd entries and removes the even entries that
    are most similar to an odd entry, at most PER_STEP of them. For few tokens all similarities are
    computed once, for many at each step.

    Args:
        unit: Vectors of length one of all tokens.
        listed: Indices of the tokens to choose from.
        keep: Number of tokens kept.
    """
    few = len(unit) <= block_rows(len(unit))
    similarity = unit @ unit.T if few else None
    while len(listed) > keep:
        even, odd = listed[::2], listed[1::2]
        if not len(odd):
            return listed[:keep]
        leave = min(PER_STEP, len(listed) - keep, len(even))
        if similarity is not None:
            closest = similarity[even][:, odd].amax(1)
        else:
            parts = unit[even].split(block_rows(len(odd)))
            others = unit[odd].T
            closest = torch.cat([(part @ others).amax(1) for part in parts])
        order = closest.argsort(descending=True, stable=True)
        listed = torch.cat([even[order[leave:]], odd])
    return listed


@final
@dataclass(frozen=True)
class VisPruner(KeepPerImage):
    """Keep the tokens that [CLS] attends to most, and the least similar ones of the others.

    Source: VisPruner, arXiv:2412.01818v2.
    Differs from the authors' code (Theia-4869/VisPruner at aefa01ad): nothing where the code runs
        (it needs a list of even length at every step), but similarity is computed in float32.

    Attributes:
        keep: Number of tokens kept per image.
        important_ratio: Share of the kept tokens chosen by attention, in [0, 1]; rounded down.
        block: Encoder block whose attention is read.
    """

    keep: Keep
    important_ratio: Share = 0.5
    block: int = -2
    places = ("features",)

    def __post_init__(self) -> None:
        require_fields(self)

    @property
    def cls_attention_blocks(self) -> tuple[int]:
        return (self.block,)

    def reduce(self, view: VisionView) -> Reduction:
        score = view.cls_attention(self.block).float().mean(0)
        tokens, keep = len(score), self.kept(view)
        order = ranked(score)
        important = int(keep * self.important_ratio)
        chosen = order[:important]
        if important < keep < tokens:
            hidden = view.hidden.float()
            view.count_macs(tokens * hidden.numel())
            unit = F.normalize(hidden, dim=-1)
            others = without_duplicates(unit, order[important:], keep - important)
            chosen = torch.cat([chosen, others])
        elif keep == tokens:
            chosen = order
        return Reduction(chosen.sort().values, ascending=True)
