"""95 % intervals of a mean score, and of the difference between two methods on the same samples.

Scores that are all 0 or 1 are proportions: Wilson's score interval for one, Newcombe's
square-and-add (hybrid score) interval for the difference of two paired ones. Any other scores (soft
VQA accuracy, ANLS, an average over seeds) get Student's t, over the scores or over their paired
differences. Where several samples share an image, both get the cluster-robust t interval of
:mod:`analysis.statistics.pairs`.

t needs a spread. Where fewer than ``FEW`` images differ from the value that most images have, it is
too narrow: over simulated tables with four such images expected it covers the truth in 90 of 100,
and where none differs it has no width. There the bounds of :mod:`analysis.statistics.binomial`
count images; where that value is 0 or 1 (nearly all right, nearly all wrong), the interval is
Wilson's for as many samples as there are images of equal weight, as if an image answered all its
questions alike. Scores outside [0, 1] have no bounds, and then no interval.

All are closed forms, so that a table is the same on every machine. Knows nothing about runs.

Sources: E. B. Wilson, JASA 22 (1927) 209-212; R. G. Newcombe, Statistics in Medicine 17 (1998)
2635-2650, method 10; N. Dean and M. Pagano, Journal of Survey Statistics and Methodology 3 (2015)
484-503 (Wilson's interval for clustered samples, by their effective number).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from math import isnan, nan, sqrt
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy import special, stats

from analysis.statistics.binomial import binomial_bounds, commonest, too_few_differ
from analysis.statistics.pairs import LEVEL, Pairs, clustered_error, pairs

FEW = 5  # images that differ, below which t is not trusted
Method = Literal["wilson", "newcombe", "t", "cluster", "binomial", "none"]


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95 % interval.

    Attributes:
        value: The mean, or the difference of two means.
        low: Lower end; NaN where there are too few samples for one.
        high: Upper end.
        method: How the ends were found; ``none`` where there are none.
        n: Samples (pairs) behind it.
    """

    value: float
    low: float
    high: float
    method: Method
    n: int


def mean_interval(scores: ArrayLike, images: Iterable[Any] | None = None) -> Interval:
    """Mean of the scores: Wilson's interval if all are 0 or 1, else Student's t.

    Args:
        scores: One a sample.
        images: What each sample's image is called; where several samples share one, the interval is
            the cluster-robust one.

    Raises:
        ValueError: If a score is not finite, or there is not an image per sample.
    """
    values = _scores(scores)
    if not len(values):
        return Interval(nan, nan, nan, "none", 0)
    shared = pairs(values, np.zeros(len(values)), images)
    if shared.binary and not shared.clustered:
        low, high = _wilson(values.sum(), len(values))
        return Interval(shared.value, low, high, "wilson", len(values))
    if commonest(shared) in (0.0, 1.0) and _steady(shared) and _shares(shared):
        low, high = _wilson(shared.value * shared.effective, shared.effective)
        return Interval(shared.value, low, high, "wilson", shared.n)
    if shared.images > 1 and _steady(shared):
        return _from_counts(shared, least=0.0)
    return _student(shared, share=shared.binary)


def paired_interval(
    ours: ArrayLike, theirs: ArrayLike, images: Iterable[Any] | None = None
) -> Interval:
    """Mean of ``ours`` minus mean of ``theirs``, sample by sample: Newcombe for 0 and 1, else t.

    Args:
        ours: One a sample.
        theirs: One a sample.
        images: As in :func:`mean_interval`.

    Raises:
        ValueError: If the two do not have one score per sample each, or a score is not finite.
    """
    first, second = _scores(ours), _scores(theirs)
    if len(first) != len(second):
        raise ValueError(f"paired scores need equal lengths, got {len(first)} and {len(second)}")
    if not len(first):
        return Interval(nan, nan, nan, "none", 0)
    shared = pairs(first, second, images)
    if shared.clustered or not shared.binary:
        return _from_counts(shared, least=-1.0) if _steady(shared) else _student(shared)
    return _newcombe(
        both=int((first * second).sum()),
        first=int((first * (1 - second)).sum()),
        second=int(((1 - first) * second).sum()),
        n=len(first),
    )


def _steady(found: Pairs) -> bool:
    """Whether t would be too narrow: nearly all images have one value."""
    return commonest(found) is not None and too_few_differ(found, FEW)


def _shares(found: Pairs) -> bool:
    return bool(((found.ours >= 0) & (found.ours <= 1)).all())


def _from_counts(found: Pairs, least: float) -> Interval:
    low, high = binomial_bounds(found, least)
    return Interval(found.value, low, high, "none" if isnan(low) else "binomial", found.n)


def _student(found: Pairs, share: bool = False) -> Interval:
    """Student's t on the cluster-robust error, with a degree of freedom for each image but one.

    Args:
        found: The scores.
        share: Whether the mean is a share, so that its interval lies within [0, 1].
    """
    value, images = found.value, found.images
    if images < 2:
        return Interval(value, nan, nan, "none", found.n)
    if found.clustered:
        error = clustered_error(found)
    else:
        error = found.differences.std(ddof=1) / sqrt(images)
    half = float(stats.t.ppf((1 + LEVEL) / 2, images - 1) * error)
    low, high = value - half, value + half
    if share:
        low, high = max(low, 0.0), min(high, 1.0)
    return Interval(value, low, high, "cluster" if found.clustered else "t", found.n)


def _newcombe(both: int, first: int, second: int, n: int) -> Interval:
    """Newcombe's method 10 from the counts of a paired 2 x 2 table.

    Args:
        both: Samples that both get right.
        first: Samples that only the first gets right.
        second: Samples that only the second gets right.
        n: All samples.
    """
    neither = n - both - first - second
    p, q = (both + first) / n, (both + second) / n
    (p_low, p_high), (q_low, q_high) = (
        _wilson(right, n) for right in (both + first, both + second)
    )
    margins = (both + first) * (second + neither) * (both + second) * (first + neither)
    covariance = both * neither - first * second
    if covariance > 0:
        covariance = max(covariance - n / 2, 0)
    phi = covariance / sqrt(margins) if margins else 0.0

    def reach(a: float, b: float) -> float:
        return sqrt(max(a * a - 2 * phi * a * b + b * b, 0))

    low = p - q - reach(p - p_low, q_high - q)
    high = p - q + reach(q - q_low, p_high - p)
    return Interval(p - q, float(low), float(high), "newcombe", n)


def _wilson(right: float, n: float) -> tuple[float, float]:
    """Wilson's interval of a share of n, which need be no whole number."""
    p, z = right / n, float(special.ndtri((1 + LEVEL) / 2))
    scale = 2 * (n + z**2)
    centre = (2 * n * p + z**2) / scale
    half = z / scale * sqrt(4 * n * p * (1 - p) + z**2)
    return 0.0 if right == 0 else centre - half, 1.0 if right == n else centre + half


def _scores(scores: ArrayLike) -> np.ndarray:
    values = np.asarray(scores, dtype=float)
    if values.ndim != 1 or not np.isfinite(values).all():
        raise ValueError("scores must be one finite number per sample")
    return values
