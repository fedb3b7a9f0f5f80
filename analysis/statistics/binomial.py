"""Bounds of a mean for samples in which almost all images have the same value, from image counts.

If nothing or almost nothing differs, resampling shows no spread or too little: for 320 samples
without a difference, [0, 0] is not an interval. Let c be the value of most images. For values in
[least, 1], the mean is at least c - (c - least) * (share of images below c) * heaviest, and at most
c + (1 - c) * (share of images above c) * heaviest. The shares have exact (Clopper-Pearson) bounds:
3.7 / n if none of n images differs, which is the two-sided rule of three. The bounds are wide but
never too narrow. Knows nothing about runs.

Sources: C. J. Clopper and E. S. Pearson, Biometrika 26 (1934) 404-413; J. A. Hanley and A.
Lippman-Hand, JAMA 249 (1983) 1743-1745 (the rule of three).
"""

from math import nan

import numpy as np
from scipy import stats

from analysis.statistics.pairs import LEVEL, Pairs

FEW = 10  # smallest number of differing images for which the bootstrap is used
DECIMALS = 9  # means are rounded: an average over seeds has rounding errors, not differences


def too_few_differ(paired: Pairs, few: int = FEW) -> bool:
    """Whether fewer than ``few`` images differ from the commonest value."""
    return sum(_differing(paired)) < few


def commonest(paired: Pairs) -> float | None:
    """Mean difference shared by more than half of the images; None if there is no such value."""
    means, counts = np.unique(_means(paired), return_counts=True)
    index = int(counts.argmax())
    return float(means[index]) if 2 * counts[index] > paired.images else None


def binomial_bounds(paired: Pairs, least: float = -1.0) -> tuple[float, float]:
    """95 % bounds of the mean difference; NaN without images or with scores outside [0, 1].

    Args:
        paired: Scores of both arms.
        least: Smallest possible difference: -1, or 0 if the second arm is all zeros.
    """
    if not _bounded(paired):
        return nan, nan
    value = commonest(paired) or 0.0
    above, below = (
        _heaviest(paired) * stats.binomtest(count, paired.images).proportion_ci(LEVEL).high
        for count in _differing(paired)
    )
    return max(least, value - (value - least) * below), min(1.0, value + (1 - value) * above)


def binomial_p(paired: Pairs, null: float) -> float:
    """Two-sided p of a true difference of ``null``, by inverting :func:`binomial_bounds`.

    If the true difference ``null`` is below the commonest value, at least a certain share of the
    images lies below that value; p is twice the probability of as few as were observed. NaN where
    the bounds are NaN.
    """
    if not _bounded(paired):
        return nan
    value = commonest(paired) or 0.0
    above, below = _differing(paired)
    count, reach = (below, value + 1) if null < value else (above, 1 - value)
    # If the value is at the end of the scale, nothing beyond it is possible.
    share = (
        min(1.0, abs(null - value) / (reach * _heaviest(paired))) if reach else float(null != value)
    )
    return min(1.0, 2 * float(stats.binom.cdf(count, paired.images, share)))


def _bounded(paired: Pairs) -> bool:
    """Whether there are scores and all of them lie in [0, 1]."""
    values = (paired.ours, paired.theirs)
    return paired.n > 0 and all(((scores >= 0) & (scores <= 1)).all() for scores in values)


def _means(paired: Pairs) -> np.ndarray:
    """[images] mean difference of each image."""
    return np.round(paired.sums / paired.sizes, DECIMALS)


def _differing(paired: Pairs) -> tuple[int, int]:
    """Numbers of images above and below the commonest value, or 0 if there is no such value."""
    deviations = _means(paired) - (commonest(paired) or 0.0)
    return int((deviations > 0).sum()), int((deviations < 0).sum())


def _heaviest(paired: Pairs) -> float:
    """Largest number of samples of one image, relative to the mean number: 1 without clusters."""
    return float(paired.sizes.max() / paired.sizes.mean())
