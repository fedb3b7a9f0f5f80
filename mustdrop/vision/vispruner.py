"""VisPruner: keep half of the tokens by [CLS] attention and half by removing duplicates."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from mustdrop.fixed_counts import KeepPerImage
from mustdrop.functional import ranked
from mustdrop.pairwise import Nearest, block_rows, nearest_tokens
from mustdrop.reduction import Reduction
from mustdrop.strategy import Keep, Share, VisionView, require_fields

PER_STEP = 8  # duplicates removed at a time
NEIGHBOURS = 32  # nearest tokens of each token that are looked up before all pairs are compared


def without_duplicates(
    unit: Float[Tensor, "tokens dim"], listed: Int[Tensor, " listed"], keep: int
) -> Int[Tensor, " kept"]:
    """Reduce the listed tokens to ``keep`` by removing those most similar to another.

    Each step splits the list into its even and its odd entries and removes the even entries that
    are most similar to an odd entry, at most PER_STEP of them. The even entries that stay come
    first, by falling similarity. For few tokens all similarities are computed once. For many the
    nearest tokens of each token are computed once, and again where half of the list has left.

    Args:
        unit: Vectors of length one of all tokens.
        listed: Indices of the tokens to choose from.
        keep: Number of tokens kept.
    """
    if len(unit) <= block_rows(len(unit)):
        similarity = unit @ unit.T
        return _reduced(listed, keep, lambda even, odd: similarity[even][:, odd].amax(1), keep)
    while len(listed) > keep:
        nearest, points = nearest_tokens(unit[listed], NEIGHBOURS), unit[listed]
        order = torch.arange(len(listed), device=listed.device)
        least = max(keep, len(listed) // 2)
        listed = listed[_reduced(order, least, partial(_closest, points, nearest), keep)]
    return listed


def _reduced(
    listed: Int[Tensor, " listed"],
    least: int,
    closest: Callable[[Int[Tensor, " even"], Int[Tensor, " odd"]], Float[Tensor, " even"]],
    keep: int,
) -> Int[Tensor, " left"]:
    """Take steps until ``least`` tokens are left or fewer.

    Args:
        listed: Indices of the tokens to choose from.
        least: Number of tokens at which the steps end.
        closest: Function from even and odd entries to the similarity of each even entry to the odd
            entry that is most similar to it.
        keep: Number of tokens that no step goes below.
    """
    while len(listed) > least:
        even, odd = listed[::2], listed[1::2]
        if not len(odd):
            return listed[:keep]
        leave = min(PER_STEP, len(listed) - keep, len(even))
        order = closest(even, odd).argsort(descending=True, stable=True)
        listed = torch.cat([even[order[leave:]], odd])
    return listed


def _closest(
    points: Float[Tensor, "tokens dim"],
    nearest: Nearest,
    even: Int[Tensor, " even"],
    odd: Int[Tensor, " odd"],
) -> Float[Tensor, " even"]:
    """Similarity of each even entry to the odd entry that is most similar to it.

    It is that of the first odd entry among the nearest tokens. All odd entries are compared with
    the even entries that have none there; the host waits for their number.
    """
    is_odd = torch.zeros(len(points), dtype=torch.bool, device=points.device)
    is_odd[odd] = True
    hits = is_odd[nearest.tokens[even]]
    first = hits.byte().argmax(1, keepdim=True)
    similarity = nearest.similarity[even].gather(1, first)[:, 0]
    lacking = (~hits.gather(1, first)[:, 0]).nonzero()[:, 0]
    if len(lacking):
        others = points[odd].T
        parts = points[even[lacking]].split(block_rows(len(odd)))
        similarity[lacking] = torch.cat([(part @ others).amax(1) for part in parts])
    return similarity


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
