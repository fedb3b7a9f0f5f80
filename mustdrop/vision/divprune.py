"""DivPrune: keep a diverse set of vision tokens, those that lie farthest from each other."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from mustdrop.fixed_counts import KeepPerImage
from mustdrop.pairwise import block_rows
from mustdrop.reduction import Reduction
from mustdrop.strategy import Keep, VisionView, require_fields


def cosine_distance(hidden: Float[Tensor, "tokens dim"]) -> Float[Tensor, "tokens tokens"]:
    """Cosine distance, 1 - cos, of every pair of tokens, in float32."""
    unit = F.normalize(hidden.float(), dim=-1)
    return 1.0 - unit @ unit.T


def farthest(
    distance: Float[Tensor, "tokens tokens"], keep: int, allow_repeats: bool = False
) -> Int[Tensor, " kept"]:
    """Indices of ``keep`` tokens, in the order in which max-min selection takes them.

    The first token is the one whose nearest neighbour is farthest. Each next token is the one whose
    nearest chosen token is farthest. Ties go to the earlier token.

    Args:
        distance: Distance of every pair of tokens.
        keep: Number of tokens taken; a number above ``tokens`` takes all.
        allow_repeats: Whether a token may be taken twice. Only the parity test needs it: the
            authors' code takes a token again where all others are duplicates of taken ones and the
            token's distance to itself is rounded up.
    """
    tokens = len(distance)
    if tokens < 2 or keep == 0:
        return torch.arange(min(keep, tokens), device=distance.device)
    gap = distance.topk(2, dim=0, largest=False).values[1]
    return _spread(gap, lambda token: distance.index_select(0, token)[0], keep, allow_repeats)


def farthest_in_blocks(hidden: Float[Tensor, "tokens dim"], keep: int) -> Int[Tensor, " kept"]:
    """Result of :func:`farthest` for the cosine distance, which is computed a few rows at a time.

    Each token taken costs one more row. At least two tokens, and one taken.
    """
    unit = F.normalize(hidden.float(), dim=-1)
    gap = torch.cat(
        [
            (1.0 - part @ unit.T).topk(2, largest=False).values[:, 1]
            for part in unit.split(block_rows(len(unit)))
        ]
    )
    return _spread(gap, lambda token: 1.0 - (unit.index_select(0, token) @ unit.T)[0], keep, False)


def _spread(
    gap: Float[Tensor, " tokens"],
    distance: Callable[[Int[Tensor, " 1"]], Float[Tensor, " tokens"]],
    keep: int,
    allow_repeats: bool,
) -> Int[Tensor, " kept"]:
    """Take tokens one after the other.

    Args:
        gap: Distance of each token to its nearest neighbour.
        distance: Function from a token to its distances to all tokens.
        keep: Number of tokens taken.
        allow_repeats: Whether a token may be taken twice.
    """
    nearest = torch.full_like(gap, torch.inf)
    chosen = []
    for _ in range(min(keep, len(gap))):
        best = gap.argmax(0, keepdim=True)
        chosen.append(best)
        nearest = torch.minimum(nearest, distance(best))
        if not allow_repeats:
            nearest.index_fill_(0, best, -torch.inf)
        gap = nearest
    return torch.cat(chosen)


@final
@dataclass(frozen=True)
class DivPrune(KeepPerImage):
    """Keep the vision tokens of an image that lie farthest from each other.

    argmax_{|S| = K}  min_{i, j in S}  1 - cos(v_i, v_j),  solved greedily behind the projector; the
    first token is the one whose nearest neighbour is farthest.

    Source: DivPrune, arXiv:2503.02175 (max-min diversity problem).
    Differs from the authors' code (vbdi/divprune at 799e2d95): each image has its own choice, where
        the code applies the choice of a batch's first image to all; distances are float32; no token
        is chosen twice, which the code may do where all others are duplicates of chosen ones.

    Attributes:
        keep: Number of tokens kept per image, K.
    """

    keep: Keep
    places = ("projected",)

    def __post_init__(self) -> None:
        require_fields(self)

    def reduce(self, view: VisionView) -> Reduction:
        hidden = view.hidden
        tokens, dim = hidden.shape
        keep = self.kept(view)
        if keep == tokens:
            return Reduction(torch.arange(tokens, device=hidden.device), ascending=True)
        view.count_macs(tokens * tokens * dim)
        if tokens <= block_rows(tokens) or not keep:
            chosen = farthest(cosine_distance(hidden), keep)
        else:
            view.count_macs(keep * tokens * dim)
            chosen = farthest_in_blocks(hidden, keep)
        return Reduction(chosen.sort().values, ascending=True)
