"""Scores of two arms on the same samples, and which samples show the same image.

Questions about one image share what the image makes easy or hard, so that they are no independent
draws: resampling, flipping and standard errors work on images (clusters), with all their questions.
Knows nothing about runs, and takes no decision.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from math import nan, sqrt
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from statsmodels.regression.linear_model import OLS

LEVEL = 0.95  # of every interval and test


@dataclass(frozen=True, eq=False)
class Pairs:
    """Both arms' scores, sample by sample.

    Attributes:
        ours: [samples] score of the first arm.
        theirs: [samples] score of the second.
        clusters: [samples] number of the sample's image, 0 to ``images`` - 1.
    """

    ours: np.ndarray
    theirs: np.ndarray
    clusters: np.ndarray

    @property
    def n(self) -> int:
        """Samples."""
        return len(self.ours)

    @property
    def differences(self) -> np.ndarray:
        """[samples] ours minus theirs."""
        return self.ours - self.theirs

    @property
    def value(self) -> float:
        """Mean difference over samples; NaN without any."""
        return float(self.differences.mean()) if self.n else nan

    @property
    def sums(self) -> np.ndarray:
        """[images] sum of an image's differences."""
        sums = np.bincount(self.clusters, weights=self.differences)
        # an average over seeds leaves crumbs of 1e-17, which are no difference
        return np.where(np.abs(sums) < 1e-12, 0.0, sums)

    @property
    def sizes(self) -> np.ndarray:
        """[images] questions about an image."""
        return np.bincount(self.clusters)

    @property
    def images(self) -> int:
        """Independent clusters; samples of unknown image are one each."""
        return len(self.sizes)

    @property
    def effective(self) -> float:
        """Number of images of equal weight that tell as much: fewer where sizes differ (Kish)."""
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
        """Samples on which only ours, and only theirs, scores higher."""
        return int((self.differences > 0).sum()), int((self.differences < 0).sum())


def pairs(ours: ArrayLike, theirs: ArrayLike, images: Iterable[Any] | None = None) -> Pairs:
    """Scores of two arms on the same samples, in the same order.

    Args:
        ours: A finite score per sample.
        theirs: A finite score per sample.
        images: What the sample's image is called; None where unknown, a cluster of its own.

    Raises:
        ValueError: If lengths differ or a score is not finite.
    """
    first, second = (np.asarray(scores, dtype=float) for scores in (ours, theirs))
    if first.ndim != 1 or first.shape != second.shape:
        raise ValueError(f"paired scores need equal lengths, got {first.shape} and {second.shape}")
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise ValueError("scores must be one finite number per sample")
    if images is None:
        return Pairs(first, second, np.arange(len(first)))
    listed = pd.Series(list(images), dtype=object)
    if len(listed) != len(first):
        raise ValueError(f"expected an image per sample ({len(first)}), got {len(listed)}")
    codes, names = pd.factorize(listed)
    unknown = codes < 0
    codes = np.where(unknown, len(names) + np.cumsum(unknown) - 1, codes)
    return Pairs(first, second, codes)


def clustered_error(found: Pairs) -> float:
    """Standard error of the mean difference, robust to correlation within an image.

    The closed form beside the bootstrap: statsmodels' cluster-robust covariance of the intercept,
    with its correction for few clusters; with one question an image it is s / sqrt(n). NaN below
    two images.

    Source: K.-Y. Liang and S. L. Zeger, Biometrika 73 (1986) 13-22.
    """
    if found.images < 2:
        return nan
    fit = OLS(found.differences, np.ones(found.n)).fit(
        cov_type="cluster", cov_kwds={"groups": found.clusters}
    )
    return float(fit.bse[0])


def design_effect(found: Pairs) -> float:
    """Variance of the mean difference over what it were with every sample an image of its own.

    1 where each image has one question; NaN where no two differences differ.

    Source: L. Kish, Survey Sampling (1965).
    """
    if found.n < 2 or not found.clustered:
        return 1.0
    plain = float(found.differences.std(ddof=1)) / sqrt(found.n)
    return (clustered_error(found) / plain) ** 2 if plain else nan
