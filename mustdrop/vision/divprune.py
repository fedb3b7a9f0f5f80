"""Selection for diversity: the tokens of an image that lie farthest from each other."""

from dataclasses import dataclass
from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from mustdrop.reduction import Reduction
from mustdrop.strategy import Count, VisionStrategy, VisionView, require_fields


def cosine_distance(hidden: Float[Tensor, "tokens dim"]) -> Float[Tensor, "tokens tokens"]:
    """1 - cos of every pair, in float32."""
    unit = F.normalize(hidden.float(), dim=-1)
    return 1.0 - unit @ unit.T


def farthest(
    distance: Float[Tensor, "tokens tokens"], keep: int, again: bool = False
) -> Int[Tensor, " kept"]:
    """``keep`` tokens in the order in which max-min selection takes them.

    The first is the one whose nearest neighbour is farthest; each next one the token whose nearest
    chosen token is. Ties go to the earlier token.

    Args:
        distance: Of every pair.
        keep: Tokens taken; more than there are takes all.
        again: Whether a token may be taken twice, for parity only: the authors' code lets it where
            all others are duplicates of taken ones and its distance to itself is rounded up.
    """
    tokens = len(distance)
    keep = min(keep, tokens)
    if tokens < 2 or keep == 0:
        return torch.arange(keep, device=distance.device)
    gap = distance.topk(2, dim=0, largest=False).values[1]
    nearest = torch.full_like(gap, torch.inf)
    chosen = []
    for _ in range(keep):
        best = gap.argmax(0, keepdim=True)
        chosen.append(best)
        nearest = torch.minimum(nearest, distance.index_select(0, best)[0])
        if not again:
            nearest.index_fill_(0, best, -torch.inf)
        gap = nearest
    return torch.cat(chosen)


@final
@dataclass(frozen=True)
class DivPrune(VisionStrategy):
    """Keep the tokens of largest minimum distance to each other, behind the projector.

    argmax_{|S| = K}  min_{i, j in S}  1 - cos(v_i, v_j),  greedily, from the token whose nearest
    neighbour is farthest.

    Source: DivPrune, arXiv:2503.02175 (max-min diversity problem).
    Differs from the authors' code (vbdi/divprune at 799e2d95): each image has a choice of its own,
        where the code applies that of a batch's first to all; distances are float32; a chosen token
        is not chosen again, as the code may where all others are duplicates of chosen ones.

    Attributes:
        keep: Tokens kept per image, K.
    """

    keep: Count
    places = ("projected",)

    def __post_init__(self) -> None:
        require_fields(self)

    def reduce(self, view: VisionView) -> Reduction:
        hidden = view.hidden
        tokens, dim = hidden.shape
        if self.keep >= tokens:
            return Reduction(torch.arange(tokens, device=hidden.device))
        view.count_macs(tokens * tokens * dim)
        chosen = farthest(cosine_distance(hidden), self.keep)

        return Reduction(chosen.sort().values)
