"""Difference of two arms on the same samples: interval, test and power, each by a suitable method.

Interval: bootstrap by images, or bounds from counts if fewer than ten images differ. Test of no
difference: McNemar's mid-p for scores of 0 and 1 with one question per image, else sign flips by
image. Knows nothing about runs and claims.
"""

from dataclasses import dataclass
from math import nan
from typing import Literal

import numpy as np

from analysis.statistics.binomial import binomial_bounds, binomial_p, too_few_differ
from analysis.statistics.bootstrap import DRAWS, bootstrap, percentile_p, percentiles
from analysis.statistics.mcnemar import mcnemar_p
from analysis.statistics.pairs import Pairs, design_effect
from analysis.statistics.power import detectable, samples_needed
from analysis.statistics.sign_flip import sign_flip_p


@dataclass(frozen=True, eq=False)
class Difference:
    """Mean paired difference with its interval and test, in the unit of the score.

    Attributes:
        pairs: Scores of both arms.
        low: Lower end of the 95 % interval; NaN if there is no interval.
        high: Upper end of the interval.
        method: Method that gave the interval.
        p: Two-sided p of no difference.
        test: Test that gave p.
        drawn: [draws] mean differences of the bootstrap, if that is the method.
    """

    pairs: Pairs
    low: float
    high: float
    method: Literal["bootstrap", "binomial", "none"]
    p: float
    test: Literal["McNemar mid-p", "sign flips by image", "none"]
    drawn: np.ndarray | None = None

    @property
    def value(self) -> float:
        """Mean of ours minus mean of theirs."""
        return self.pairs.value

    def p_at(self, null: float) -> float:
        """Two-sided p of a true difference of ``null``, inverted from the interval."""
        if self.drawn is not None:
            return percentile_p(self.drawn, null)
        return binomial_p(self.pairs, null) if self.method == "binomial" else nan

    def needed(self, difference: float) -> int | None:
        """Number of samples like these that detect such a difference with a power of 80 %.

        None if too few images differ to estimate how often the arms disagree.
        """
        psi, design = self._spread()
        return samples_needed(difference, psi, design) if psi >= difference**2 > 0 else None

    @property
    def detectable(self) -> float:
        """Smallest true difference that this many samples detect with a power of 80 %, or NaN."""
        psi, design = self._spread()
        return detectable(self.pairs.n, psi, design) if psi > 0 else nan

    def _spread(self) -> tuple[float, float]:
        """Mean squared difference and design effect; (0, 1) if no bootstrap was drawn."""
        if self.drawn is None:
            return 0.0, 1.0
        return float((self.pairs.differences**2).mean()), design_effect(self.pairs)


def difference(paired: Pairs, draws: int = DRAWS, seed: int = 0) -> Difference:
    """Difference of two arms with its interval and test; the same on every machine."""
    if not paired.n:
        return Difference(paired, nan, nan, "none", nan, "none")
    if paired.binary and not paired.clustered:
        p, test = mcnemar_p(*paired.discordant), "McNemar mid-p"
    else:
        p, test = sign_flip_p(paired, draws, seed), "sign flips by image"
    if too_few_differ(paired) or paired.images < 2:
        low, high = binomial_bounds(paired)
        method = "none" if np.isnan(low) else "binomial"
        return Difference(paired, low, high, method, p, test)
    drawn = bootstrap(paired, draws, seed)
    return Difference(paired, *percentiles(drawn), "bootstrap", p, test, drawn)
