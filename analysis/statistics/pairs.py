"""Scores of two arms on the same samples, with the image of each sample.

Questions about one image share its difficulty, so they are not independent draws. Resampling, sign
flips and standard errors therefore work on images (clusters), with all their questions. Knows
nothing about runs and decisions.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from math import nan, sqrt
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from statsmodels.regression.linear_model import OLS

LEVEL = 0.95  # confidence level of all intervals and tests


@dataclass(frozen=True, eq=False)
class Pairs:
    """Scores of both arms, sample by sample.

    Attributes:
        ours: [samples] scores of the first arm.
        theirs: [samples] scores of the second arm.
        clusters: [samples] index of the sample's image, 0 to ``images`` - 1.
    """

    ours: np.ndarray
    theirs: np.ndarray
    clusters: np.ndarray

    @property
    def n(self) -> int:
        """Number of samples."""
        return len(self.ours)

    @property
    def differences(self) -> np.ndarray:
        """[samples] scores of the first arm minus those of the second."""
        return self.ours - self.theirs

    @property
    def value(self) -> float:
        """Mean difference over samples; NaN without samples."""
        return float(self.differences.mean()) if self.n else nan

    @property
    def sums(self) -> np.ndarray:
        """[images] sum of the differences of each image."""
        sums = np.bincount(self.clusters, weights=self.differences)
        # An average over seeds has rounding errors of 1e-17, which are not differences.
        return np.where(np.abs(sums) < 1e-12, 0.0, sums)

    @property
    def sizes(self) -> np.ndarray:
        """[images] number of questions about each image."""
        return np.bincount(self.clusters)

    @property
    def images(self) -> int:
        """Number of clusters; each sample of an unknown image is a separate cluster."""
        return len(self.sizes)

    @property
    def effective(self) -> float:
        """Effective number of images of equal weight: smaller if sizes differ (Kish)."""
        return float(self.n**2 / (self.sizes**2).sum())

    @property
    def clustered(self) -> bool:
        """Whether some image has several questions."""
        return self.images < self.n

    @property
    def binary(self) -> bool:
        """Whether every score is 0 or 1."""
        return all(bool(np.isin(scores, (0.0, 1.0)).all()) for scores in (self.ours, self.theirs))

    @property
    def discordant(self) -> tuple[int, int]:
        """Numbers of samples on which the first arm, and the second arm, scores higher."""
        return int((self.differences > 0).sum()), int((self.differences < 0).sum())


def pairs(ours: ArrayLike, theirs: ArrayLike, images: Iterable[Any] | None = None) -> Pairs:
    """Pair the scores of two arms on the same samples, given in the same order.

    Args:
        ours: One finite score per sample.
        theirs: One finite score per sample.
        images: Name of each sample's image; a sample with None (unknown) is a separate cluster.

    Raises:
        ValueError: If lengths differ or a score is not finite.
    """
    first, second = (np.asarray(scores, dtype=float) for scores in (ours, theirs))
    if first.ndim != 1 or first.shape != second.shape:
        raise ValueError(f"paired scores need equal lengths, got {first.shape} and {second.shape}")
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise ValueError("scores must be one finite number per sample")
    return Pairs(first, second, clusters(len(first), images))


def clusters(samples: int, images: Iterable[Any] | None = None) -> np.ndarray:
    """[samples] index of each sample's image.

    Args:
        samples: Number of samples.
        images: Name of each sample's image, as in :func:`pairs`; None: each has another image.

    Raises:
        ValueError: If the number of images differs.
    """
    if images is None:
        return np.arange(samples)
    listed = pd.Series(list(images), dtype=object)
    if len(listed) != samples:
        raise ValueError(f"expected one image per sample ({samples}), got {len(listed)}")
    codes, names = pd.factorize(listed)
    unknown = codes < 0
    return np.where(unknown, len(names) + np.cumsum(unknown) - 1, codes)


def clustered_error(paired: Pairs) -> float:
    """Standard error of the mean difference, robust to correlation within an image.

    This is the closed form next to the bootstrap: statsmodels' cluster-robust covariance of the
    intercept, with its correction for few clusters. With one question per image it is s / sqrt(n).
    NaN for fewer than two images.

    Source: K.-Y. Liang and S. L. Zeger, Biometrika 73 (1986) 13-22.
    """
    if paired.images < 2:
        return nan
    fit = OLS(paired.differences, np.ones(paired.n)).fit(
        cov_type="cluster", cov_kwds={"groups": paired.clusters}
    )
    return float(fit.bse[0])


def design_effect(paired: Pairs) -> float:
    """Variance of the mean difference relative to that of as many independent samples.

    1 if each image has one question; NaN if all differences are equal.

    Source: L. Kish, Survey Sampling (1965).
    """
    if paired.n < 2 or not paired.clustered:
        return 1.0
    plain = float(paired.differences.std(ddof=1)) / sqrt(paired.n)
    return (clustered_error(paired) / plain) ** 2 if plain else nan
