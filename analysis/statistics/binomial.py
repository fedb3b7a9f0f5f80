"""Bounds of a mean where next to no image differs from the others, from counts of images alone.

Resampling shows no spread where nothing differs, and too little where almost nothing does: of 320
samples without a difference, [0, 0] is no interval. Let c be the value that most images have. A
mean of scores in [least, 1] is at least c less (c - least) times the share of images below c, and
at most c plus (1 - c) times the share above, each times ``heaviest``; these shares have exact
(Clopper-Pearson) bounds: 3.7 / n where none of n images differs, which is the rule of three for two
sides. Wide, but never too narrow. Knows no runs.

Sources: C. J. Clopper and E. S. Pearson, Biometrika 26 (1934) 404-413; J. A. Hanley and A.
Lippman-Hand, JAMA 249 (1983) 1743-1745 (the rule of three).
"""

from math import nan

import numpy as np
from scipy import stats

from analysis.statistics.pairs import LEVEL, Pairs

FEW = 10  # images that differ, below which a bootstrap is not trusted
CRUMBS = 9  # decimals: an average over seeds leaves crumbs, which are no difference


def too_few_differ(found: Pairs, few: int = FEW) -> bool:
    """Whether so few images differ from the commonest value that their spread tells too little."""
    return sum(_apart(found)) < few


def commonest(found: Pairs) -> float | None:
    """Mean difference that more than half of the images have; None where there is none."""
    means, counts = np.unique(_means(found), return_counts=True)
    most = int(counts.argmax())
    return float(means[most]) if 2 * counts[most] > found.images else None


def binomial_bounds(found: Pairs, least: float = -1.0) -> tuple[float, float]:
    """The 95 % bounds; NaN without images or where scores lie outside [0, 1].

    Args:
        found: The scores.
        least: Lowest value that a difference can have: -1; 0 where the second arm is no arm.
    """
    if not _bounded(found):
        return nan, nan
    value = commonest(found) or 0.0
    above, below = (
        _heaviest(found) * stats.binomtest(count, found.images).proportion_ci(LEVEL).high
        for count in _apart(found)
    )
    return max(least, value - (value - least) * below), min(1.0, value + (1 - value) * above)


def binomial_p(found: Pairs, null: float) -> float:
    """Two-sided p of a true difference of ``null``, which the same bounds invert to; NaN as they.

    Were the difference ``null`` below the commonest value, at least a share of the images would lie
    below that value; p is twice the chance of so few.
    """
    if not _bounded(found):
        return nan
    value = commonest(found) or 0.0
    above, below = _apart(found)
    few, room = (below, value + 1) if null < value else (above, 1 - value)
    # a value at the end of the scale leaves no room: nothing beyond it is possible
    share = (
        min(1.0, abs(null - value) / (room * _heaviest(found))) if room else float(null != value)
    )
    return min(1.0, 2 * float(stats.binom.cdf(few, found.images, share)))


def _bounded(found: Pairs) -> bool:
    values = (found.ours, found.theirs)
    return found.n > 0 and all(((scores >= 0) & (scores <= 1)).all() for scores in values)


def _means(found: Pairs) -> np.ndarray:
    """[images] mean difference of each."""
    return np.round(found.sums / found.sizes, CRUMBS)


def _apart(found: Pairs) -> tuple[int, int]:
    """Number of images above and below the commonest value; above and below 0 without one."""
    apart = _means(found) - (commonest(found) or 0.0)
    return int((apart > 0).sum()), int((apart < 0).sum())


def _heaviest(found: Pairs) -> float:
    """How much more than its share of the samples one image may hold: 1 without clusters."""
    return float(found.sizes.max() / found.sizes.mean())
