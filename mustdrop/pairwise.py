"""Functions of all pairs of tokens: matching, neighbours, clusters; a block of rows at a time.

No tensor has as many elements as there are pairs, except for few tokens. Knows nothing about
models or strategies.
"""

import math
from functools import lru_cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from mustdrop.functional import ranked

MOST_PAIRS = 2**22  # elements of a block: 16 MiB in float32, all pairs of 2048 tokens


def block_rows(columns: int) -> int:
    """Number of rows of a block, of ``columns`` numbers each."""
    return max(MOST_PAIRS // max(columns, 1), 1)


def bipartite_matching(
    metric: Float[Tensor, "tokens dim"], count: int, cls: bool = False
) -> tuple[Int[Tensor, " unmerged"], Int[Tensor, " merged"], Int[Tensor, " merged"]]:
    """ToMe's matching: tokens of set A that stay, those that leave, and their partners in set B.

    A holds the even tokens, B the odd ones. Every token of A proposes an edge to the most similar
    token of B, and the ``count`` most similar edges are taken; at most half of the tokens leave.

    Source: arXiv:2210.09461, Sec. 3, and facebookresearch/ToMe, merge.py at af95e4b. As there,
        the tokens that stay are in sequence order with a [CLS], by decreasing similarity without.

    Args:
        metric: Vectors that are compared by cosine similarity; [CLS] first, if ``cls``.
        count: Number of edges requested.
        cls: Whether the first token is a [CLS], which never leaves.

    Returns:
        Indices in A of the tokens that stay, indices in A of those that leave, and indices in B of
        the partners of the latter.
    """
    unit = F.normalize(metric.float(), dim=-1)
    first, second = unit[::2], unit[1::2]
    count = max(0, min(count, (len(metric) - cls) // 2))
    if not count:  # also if set B is empty
        stay = torch.arange(len(first), device=metric.device)
        return stay, stay[:0], stay[:0]
    edges = [(part @ second.T).max(1) for part in first.split(block_rows(len(second)))]
    best, partner = (torch.cat(parts) for parts in zip(*edges, strict=True))
    if cls:
        best[0] = -math.inf
    order = best.argsort(descending=True, stable=True)
    leave, stay = order[:count], order[count:]
    return stay.sort().values if cls else stay, leave, partner[leave]


class Nearest(NamedTuple):
    """Nearest other tokens of each token, the most similar one first.

    Attributes:
        tokens: Indices of the nearest tokens.
        similarity: Cosine similarity to each of them.
    """

    tokens: Int[Tensor, "tokens nearest"]
    similarity: Float[Tensor, "tokens nearest"]


def nearest_tokens(unit: Float[Tensor, "tokens dim"], count: int) -> Nearest:
    """Nearest ``count`` other tokens of each token, or all others if there are fewer.

    Args:
        unit: Vectors of length one.
        count: Number of nearest tokens.
    """
    rows, parts = block_rows(len(unit)), []
    for start in range(0, len(unit), rows):
        similarity = unit[start : start + rows] @ unit.T
        similarity.diagonal(start).fill_(-math.inf)  # the token itself
        parts.append(similarity.topk(min(count, len(unit) - 1)))
    similarities, indices = zip(*parts, strict=True)
    return Nearest(torch.cat(indices), torch.cat(similarities))


def nearest_to(
    unit: Float[Tensor, "tokens dim"], centres: Int[Tensor, " centres"], count: int
) -> Int[Tensor, "centres nearest"]:
    """Indices of the nearest ``count`` other tokens of some tokens, the most similar one first.

    Ties go to the earlier token.

    Args:
        unit: Vectors of length one of all tokens.
        centres: Indices of the tokens whose neighbours are needed.
        count: Number of neighbours; all others if there are fewer.
    """
    parts = []
    for part in centres.split(block_rows(2 * len(unit))):  # a rank has twice the bytes
        similarity = unit[part] @ unit.T
        similarity.scatter_(1, part[:, None], -math.inf)  # the token itself has the last rank
        order = similarity.argsort(dim=1, descending=True, stable=True)
        parts.append(order[:, : min(count, len(unit) - 1)].clone())  # or all ranks would be kept
    return torch.cat(parts)


class DensityPeaks(NamedTuple):
    """Clusters of points, and the scores by which their centres were chosen.

    Attributes:
        centres: Index of each cluster's centre, by decreasing score.
        cluster: Number of the cluster of each point.
        density: Closeness of each point to its nearest points, in (0, 1].
        score: Density of each point times its distance to the nearest denser point.
    """

    centres: Int[Tensor, " clusters"]
    cluster: Int[Tensor, " points"]
    density: Float[Tensor, " points"]
    score: Float[Tensor, " points"]


def density_peaks(points: Float[Tensor, "points dim"], clusters: int) -> DensityPeaks:
    """Cluster points around those that are dense and far from any denser one.

    With d_ij = ||x_i - x_j|| / sqrt(dim), and N_i the ``clusters`` nearest points of i, i included,
      rho_i = exp(-mean_{j in N_i} d_ij^2)
      delta_i = min_{j: rho_j > rho_i} d_ij, or the largest distance of all where none is denser.
    Centres are the points of highest rho * delta; each other point joins its nearest centre. Ties
    go to the earlier point.

    Source: density peaks with k nearest neighbours (Rodriguez & Laio, 2014; Du et al., 2016), as
        SparseVLM, arXiv:2410.04417, uses it.

    Raises:
        ValueError: If ``clusters`` is not in [1, points].
    """
    count, dim = points.shape
    if not 1 <= clusters <= count:
        raise ValueError(f"clusters must be in [1, {count}], got {clusters}")
    points = points.float()

    @lru_cache(maxsize=1)  # for few points all is one block, which is computed once
    def distances(start: int) -> Tensor:
        """Distance from the points of a block to all points."""
        # differences, not dot products: points that are equal have distance zero exactly
        mode = "donot_use_mm_for_euclid_dist"
        return torch.cdist(points[start : start + rows], points, compute_mode=mode) / dim**0.5

    rows = block_rows(count)
    starts = range(0, count, rows)
    density = torch.cat([_density(distances(start), clusters) for start in starts])
    farthest = torch.stack([distances(start).max() for start in starts]).max()
    parts = []
    for start in starts:
        denser = density[None] > density[start : start + rows, None]
        parts.append(torch.where(denser, distances(start), farthest).amin(-1))
    score = torch.cat(parts) * density
    centres = ranked(score)[:clusters]
    number = torch.arange(clusters, device=points.device)
    # a centre belongs to its cluster, also where another centre is equal to it
    cluster = torch.cat([distances(start)[:, centres].argmin(1) for start in starts])
    return DensityPeaks(centres, cluster.scatter(0, centres, number), density, score)


def _density(distance: Float[Tensor, "rows points"], nearest: int) -> Float[Tensor, " rows"]:
    """Closeness of each point of a block to its nearest points."""
    return (-distance.topk(nearest, largest=False).values.square().mean(-1)).exp()
