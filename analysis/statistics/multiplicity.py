"""Holm's correction: many tests in one table, with a chance of 5 % of any false finding.

Knows nothing about the tests. Source: S. Holm, Scandinavian Journal of Statistics 6 (1979)
65-70.
"""

from collections.abc import Sequence

import numpy as np
from statsmodels.stats.multitest import multipletests


def holm(values: Sequence[float]) -> list[float]:
    """Adjusted p values; NaN (not measured) stays NaN and does not count as a test.

    Raises:
        ValueError: If a value lies outside [0, 1].
    """
    given = np.asarray(values, dtype=float)
    known = ~np.isnan(given)
    if ((given[known] < 0) | (given[known] > 1)).any():
        raise ValueError(f"p must be in [0, 1], got {list(values)}")
    adjusted = np.full(len(given), np.nan)
    if known.any():
        adjusted[known] = multipletests(given[known], method="holm")[1]
    return [float(p) for p in adjusted]
