"""95 % intervals of a mean score, and of the difference between two methods on the same samples.

Scores that are all 0 or 1 are proportions: Wilson's score interval for one, Newcombe's
square-and-add (hybrid score) interval for the difference of two paired ones. Any other scores (soft
VQA accuracy, ANLS, an average over seeds) get Student's t, over the scores or over their paired
differences. Where several samples share an image, both get the cluster-robust t interval of
:mod:`analysis.statistics.pairs`. All are closed forms, so that a table is the same on every
machine. Knows nothing about runs.

Sources: E. B. Wilson, JASA 22 (1927) 209-212; R. G. Newcombe, Statistics in Medicine 17 (1998)
2635-2650, method 10.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from math import isnan, nan, sqrt
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from analysis.statistics.pairs import Pairs, clustered_error, pairs

LEVEL = 0.95
Method = Literal["wilson", "newcombe", "t", "cluster", "none"]


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
    if shared.clustered:
        return _clustered(shared)
    if not _binary(values):
        return _student(values)
    low, high = _wilson(int(values.sum()), len(values))
    return Interval(float(values.mean()), low, high, "wilson", len(values))


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
    if shared.clustered and np.ptp(shared.differences):
        return _clustered(shared)
    if not (_binary(first) and _binary(second)):
        return _student(first - second)
    return _newcombe(
        both=int((first * second).sum()),
        first=int((first * (1 - second)).sum()),
        second=int(((1 - first) * second).sum()),
        n=len(first),
    )


def _clustered(found: Pairs) -> Interval:
    """Student's t on the cluster-robust error, with a degree of freedom for each image but one.

    Where all scores are 1, or all 0, no error can be had from them; Wilson's interval then counts
    every image once.
    """
    value, error = found.value, clustered_error(found)
    if not np.ptp(found.differences) and value in (0.0, 1.0):
        low, high = _wilson(int(value) * found.images, found.images)
        return Interval(value, low, high, "cluster", found.n)
    if isnan(error):
        return Interval(value, nan, nan, "none", found.n)
    half = float(stats.t.ppf((1 + LEVEL) / 2, found.images - 1)) * error
    low, high = value - half, value + half
    if found.binary and not found.theirs.any():
        low, high = max(low, 0.0), min(high, 1.0)  # a share
    return Interval(value, low, high, "cluster", found.n)


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


def _wilson(right: int, n: int) -> tuple[float, float]:
    found = stats.binomtest(right, n).proportion_ci(LEVEL, method="wilson")
    return float(found.low), float(found.high)


def _student(values: np.ndarray) -> Interval:
    n, mean = len(values), float(values.mean())
    if n < 2:
        return Interval(mean, nan, nan, "none", n)
    half = float(stats.t.ppf((1 + LEVEL) / 2, n - 1) * values.std(ddof=1) / sqrt(n))
    return Interval(mean, mean - half, mean + half, "t", n)


def _scores(scores: ArrayLike) -> np.ndarray:
    values = np.asarray(scores, dtype=float)
    if values.ndim != 1 or not np.isfinite(values).all():
        raise ValueError("scores must be one finite number per sample")
    return values


def _binary(values: np.ndarray) -> bool:
    return bool(np.isin(values, (0.0, 1.0)).all())
