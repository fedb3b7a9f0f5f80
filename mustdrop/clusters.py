"""Clusters of points by density peaks. Knows nothing about tokens. Nothing waits for a device."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mustdrop.functional import ranked


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
    go to the earlier point. No tensor is larger than points x points or points x dim.

    Source: density peaks with k nearest neighbours (Rodriguez & Laio, 2014; Du et al., 2016), as
        SparseVLM, arXiv:2410.04417, uses it.

    Raises:
        ValueError: If ``clusters`` is not in [1, points].
    """
    count, dim = points.shape
    if not 1 <= clusters <= count:
        raise ValueError(f"clusters must be in [1, {count}], got {clusters}")
    points = points.float()
    # differences, not dot products: points that are equal have distance zero exactly
    distance = torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist") / dim**0.5
    nearest = distance.topk(clusters, largest=False).values
    density = (-nearest.square().mean(-1)).exp()
    denser = density[None] > density[:, None]
    score = torch.where(denser, distance, distance.max()).amin(-1) * density
    centres = ranked(score)[:clusters]
    number = torch.arange(clusters, device=points.device)
    # a centre belongs to its cluster, also where another centre is equal to it
    cluster = distance[centres].argmin(0).scatter(0, centres, number)
    return DensityPeaks(centres, cluster, density, score)
