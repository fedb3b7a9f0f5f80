"""Cohen's kappa of two raters who say yes or no about the same samples, with its 95 % interval.

kappa = (p_o - p_e) / (1 - p_e), with p_o the share of samples on which both agree, and p_e the
share expected from how often each of them says yes. The interval is a t interval of the samples'
influence on kappa; with one question per image this is the classical large-sample interval. If
several samples share an image, it is cluster-robust. If fewer than ``FEW`` images have a
disagreement, exact bounds of the share of disagreements are used, at the observed p_e. Knows
nothing about runs.

Sources: J. Cohen, Educational and Psychological Measurement 20 (1960) 37-46; J. L. Fleiss, J. Cohen
and B. S. Everitt, Psychological Bulletin 72 (1969) 323-327 (large-sample variance).
"""

from collections.abc import Iterable
from math import nan
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from analysis.statistics.intervals import FEW, Interval
from analysis.statistics.pairs import LEVEL, Pairs, clustered_error, pairs


def cohens_kappa(
    first: ArrayLike, second: ArrayLike, images: Iterable[Any] | None = None
) -> Interval:
    """Kappa of two raters; NaN without samples, or if both always give the same single answer.

    Args:
        first: 1 (yes) or 0 (no) of the first rater for each sample.
        second: The same of the second rater.
        images: Name of each sample's image.

    Raises:
        ValueError: If an answer is neither 0 nor 1, or the lengths differ.
    """
    paired = pairs(first, second, images)
    if not paired.binary:
        raise ValueError("kappa needs answers of 0 or 1")
    if not paired.n:
        return Interval(nan, nan, nan, "none", 0)
    x, y = paired.ours, paired.theirs
    p, q = float(x.mean()), float(y.mean())
    by_chance = p * q + (1 - p) * (1 - q)
    if by_chance == 1:
        return Interval(nan, nan, nan, "none", paired.n)
    agrees = x == y
    observed = float(agrees.mean())
    kappa = (observed - by_chance) / (1 - by_chance)
    if len(np.unique(paired.clusters[~agrees])) < FEW:
        low, high = _exact(paired, ~agrees, 1 - by_chance)
        return Interval(kappa, low, high, "binomial", paired.n)
    drift = (2 * q - 1) * (x - p) + (2 * p - 1) * (y - q)
    influence = ((agrees - observed) - (1 - kappa) * drift) / (1 - by_chance)
    spread = Pairs(kappa + influence, np.zeros(paired.n), paired.clusters)
    half = float(stats.t.ppf((1 + LEVEL) / 2, paired.images - 1)) * clustered_error(spread)
    method = "cluster" if paired.clustered else "t"
    return Interval(kappa, max(-1.0, kappa - half), min(1.0, kappa + half), method, paired.n)


def _exact(paired: Pairs, disagrees: np.ndarray, scale: float) -> tuple[float, float]:
    """Ends of the interval from exact (Clopper-Pearson) bounds of the disagreements.

    An image with a disagreement has at least one sample that disagrees, and at most all of them.
    """
    count = len(np.unique(paired.clusters[disagrees]))
    share = stats.binomtest(count, paired.images).proportion_ci(LEVEL)
    heaviest = paired.sizes.max() / paired.sizes.mean()
    most, least = share.high * heaviest, share.low * paired.images / paired.n
    return max(-1.0, 1 - float(most) / scale), 1 - float(least) / scale
