"""Ratio of two sums over samples (precision, F1, CHAIR), with a bootstrap interval by images.

Such a ratio is no mean over samples: its denominator varies from draw to draw. Knows nothing about
runs.
"""

from collections.abc import Iterable
from math import nan
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from analysis.statistics.bootstrap import by_image, percentiles, resampled, widening
from analysis.statistics.intervals import FEW, Interval

DRAWS = 2_000  # enough for the ends of a table's interval: they move by a fiftieth of its width


def ratio_interval(
    part: ArrayLike, whole: ArrayLike, images: Iterable[Any] | None = None, seed: int = 0
) -> Interval:
    """Sum of ``part`` over sum of ``whole``, with its percentile interval.

    There is no interval if fewer than five images have a part, or fewer than five lack some of the
    whole: the draws would then hardly vary.

    Args:
        part: One number per sample, in [0, whole].
        whole: One number per sample.
        images: Name of each sample's image; None: each sample has another image.
        seed: Seed of the draws.

    Raises:
        ValueError: If a part is not in [0, whole].
    """
    columns = np.stack([np.asarray(part, dtype=float), np.asarray(whole, dtype=float)], axis=1)
    if not ((columns[:, 0] >= 0) & (columns[:, 0] <= columns[:, 1])).all():
        raise ValueError("each part must be in [0, whole]")
    counted, total = columns.sum(0)
    if not total:
        return Interval(nan, nan, nan, "none", len(columns))
    rows, value = by_image(columns, images), float(counted / total)
    if min((rows[:, 0] > 0).sum(), (rows[:, 0] < rows[:, 1]).sum()) < FEW:
        return Interval(value, nan, nan, "none", len(columns))
    drawn = resampled(rows, DRAWS, seed)
    drawn = drawn[drawn[:, 1] > 0]
    wide = value + widening(len(rows)) * (drawn[:, 0] / drawn[:, 1] - value)
    low, high = np.clip(percentiles(wide), 0.0, 1.0)
    return Interval(value, float(low), float(high), "bootstrap", len(columns))
