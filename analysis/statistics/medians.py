"""Median of a few measurements, with an interval that assumes nothing about their distribution.

Source: the sign test inverted; Conover, Practical Nonparametric Statistics, Sec. 3.2.
"""

from collections.abc import Sequence
from math import nan
from statistics import median

from scipy.stats import binom

from analysis.statistics.pairs import LEVEL


def median_interval(values: Sequence[float], level: float = LEVEL) -> tuple[float, float, float]:
    """Median, and the ends of the interval between two order statistics.

    Args:
        values: The measurements.
        level: Least probability with which the interval holds the true median. At 95 % it needs
            six values, at 97.5 % seven; with fewer its ends are NaN.
    """
    ordered, n = sorted(values), len(values)
    # least rank k with P(fewer than k values below the median) > (1 - level) / 2
    rank = int(binom.ppf((1 - level) / 2, n, 0.5))
    if rank < 1:
        return median(ordered), nan, nan
    return median(ordered), ordered[rank - 1], ordered[n - rank]
