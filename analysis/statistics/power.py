"""Number of samples needed to detect a difference between two arms on the same samples.

    n = D (z_a sqrt(psi) + z_b sqrt(psi - d^2))^2 / d^2

with d the true difference, psi the mean squared difference of a sample (for scores of 0 and 1 the
share of discordant samples), D the design effect of several questions per image, z_a and z_b the
normal quantiles of the two-sided level and of the power. Knows nothing about runs.

Sources: R. J. Connor, Biometrics 43 (1987) 207-211 (pairs of 0 and 1); L. Kish, Survey Sampling
(1965) (D).
"""

from math import ceil, sqrt

from scipy import optimize, stats

from analysis.statistics.intervals import LEVEL

POWER = 0.8


def samples_needed(
    difference: float, discordance: float, design: float = 1.0, power: float = POWER
) -> int:
    """Number of samples that detect a true difference (p < 5 %) with this power.

    Args:
        difference: True difference in the unit of the score: 0.01 for a point of accuracy.
        discordance: psi, mean of the squared differences; at least the square of ``difference``.
        design: D, factor by which clusters inflate the variance.
        power: Probability of detection, in (0, 1).

    Raises:
        ValueError: If an argument is out of its range.
    """
    if not (0 < power < 1 and design > 0):
        raise ValueError(f"expected power in (0, 1) and design > 0, got {power} and {design}")
    if not 0 < difference**2 <= discordance:
        raise ValueError(
            f"expected a difference other than 0 whose square is at most the discordance, "
            f"{discordance}, got {difference}"
        )
    return ceil(design * _samples(abs(difference), discordance, power) - 1e-9)


def detectable(n: int, discordance: float, design: float = 1.0, power: float = POWER) -> float:
    """Smallest true difference that n samples detect with this power; inverts ``samples_needed``.

    NaN if n samples cannot detect even the largest difference that the discordance allows.

    Raises:
        ValueError: If an argument is out of its range.
    """
    if n < 1 or discordance <= 0 or design <= 0 or not 0 < power < 1:
        raise ValueError(
            f"expected n >= 1, discordance > 0, design > 0, power in (0, 1), got "
            f"{n}, {discordance}, {design}, {power}"
        )
    largest = sqrt(discordance)

    def missing_samples(difference: float) -> float:
        return design * _samples(difference, discordance, power) - n

    if missing_samples(largest) > 0:
        return float("nan")
    return float(optimize.root_scalar(missing_samples, bracket=(largest * 1e-6, largest)).root)


def _samples(difference: float, discordance: float, power: float) -> float:
    """Number of samples without the design effect."""
    z_level, z_power = (float(stats.norm.ppf(tail)) for tail in ((1 + LEVEL) / 2, power))
    spread = sqrt(max(discordance - difference**2, 0.0))
    return ((z_level * sqrt(discordance) + z_power * spread) / difference) ** 2
