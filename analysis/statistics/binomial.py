"""Bounds of a mean difference where next to no image differs, from counts of images alone.

Resampling shows no spread where nothing differs, and too little where almost nothing does: of 320
samples without a difference, [0, 0] is no interval. A difference of scores in [0, 1] is at least
minus the share of images that got worse and at most the share that got better, times ``heaviest``;
these shares have exact (Clopper-Pearson) bounds. Wide, but never too narrow. Knows no runs.

Source: C. J. Clopper and E. S. Pearson, Biometrika 26 (1934) 404-413.
"""

from math import nan

from scipy import stats

from analysis.statistics.intervals import LEVEL
from analysis.statistics.pairs import Pairs

FEW = 10  # images that differ, below which a bootstrap is not trusted


def too_few_differ(found: Pairs) -> bool:
    """Whether so few images differ that a bootstrap would be too narrow."""
    return int((found.sums != 0).sum()) < FEW


def binomial_bounds(found: Pairs) -> tuple[float, float]:
    """The 95 % bounds; NaN without images or where scores lie outside [0, 1]."""
    if not _bounded(found):
        return nan, nan
    better, worse = _counts(found)
    least, most = (
        stats.binomtest(count, found.images).proportion_ci(LEVEL, method="exact").high
        for count in (worse, better)
    )
    return -_heaviest(found) * least, _heaviest(found) * most


def binomial_p(found: Pairs, null: float) -> float:
    """Two-sided p of a true difference of ``null``, which the same bounds invert to; NaN as they.

    Were the difference ``null`` < 0, at least a share -null of the images would have got worse; p
    is twice the chance of so few.
    """
    if not _bounded(found):
        return nan
    better, worse = _counts(found)
    few = worse if null < 0 else better
    share = min(1.0, abs(null) / _heaviest(found))
    return min(1.0, 2 * float(stats.binom.cdf(few, found.images, share)))


def _bounded(found: Pairs) -> bool:
    values = (found.ours, found.theirs)
    return found.n > 0 and all(((scores >= 0) & (scores <= 1)).all() for scores in values)


def _counts(found: Pairs) -> tuple[int, int]:
    return int((found.sums > 0).sum()), int((found.sums < 0).sum())


def _heaviest(found: Pairs) -> float:
    """How much more than its share of the samples one image may hold: 1 without clusters."""
    return float(found.sizes.max() / found.sizes.mean())
