"""What two arms on the same samples differ by: interval, test and power, each by the right method.

Interval: bootstrap by images; bounds from counts where fewer than ten images differ. Test of no
difference: McNemar's mid-p for scores of 0 and 1 with one question an image, else sign flips by
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
    """A mean paired difference, in the unit of the score.

    Attributes:
        pairs: The scores.
        low: Lower end of its 95 % interval; NaN where there is none.
        high: Upper end.
        method: Where the interval comes from.
        p: Of no difference, two-sided.
        test: Where p comes from.
        drawn: [draws] of the bootstrap, if that is the method.
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
        """Samples like these to find such a difference in 80 of 100 tries.

        None where too few images differ to tell how often the arms part.
        """
        psi, design = self._spread()
        return samples_needed(difference, psi, design) if psi >= difference**2 > 0 else None

    @property
    def detectable(self) -> float:
        """The least true difference that this many samples find in 80 of 100 tries, or NaN."""
        psi, design = self._spread()
        return detectable(self.pairs.n, psi, design) if psi > 0 else nan

    def _spread(self) -> tuple[float, float]:
        if self.drawn is None:
            return 0.0, 1.0
        return float((self.pairs.differences**2).mean()), design_effect(self.pairs)


def difference(found: Pairs, draws: int = DRAWS, seed: int = 0) -> Difference:
    """The difference with its interval and test; the same on every machine."""
    if not found.n:
        return Difference(found, nan, nan, "none", nan, "none")
    if found.binary and not found.clustered:
        p, test = mcnemar_p(*found.discordant), "McNemar mid-p"
    else:
        p, test = sign_flip_p(found, draws, seed), "sign flips by image"
    if too_few_differ(found) or found.images < 2:
        low, high = binomial_bounds(found)
        method = "none" if np.isnan(low) else "binomial"
        return Difference(found, low, high, method, p, test)
    drawn = bootstrap(found, draws, seed)
    return Difference(found, *percentiles(drawn), "bootstrap", p, test, drawn)
