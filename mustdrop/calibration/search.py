"""Search for the value at which a function meets a target, with few calls. Knows no model."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise

TOLERANCE = 0.01
POINTS = 9  # values over a range that are measured before an interval is chosen


@dataclass(frozen=True)
class SearchResult:
    """Result of a search.

    Attributes:
        value: Threshold found.
        measured: Measurement at this threshold.
        target: Measurement requested.
        steps: Number of measurements; 0 if they were computed without running the model.
    """

    value: float
    measured: float
    target: float
    steps: int

    @property
    def error(self) -> float:
        """Relative difference between measurement and target."""
        return self.measured / self.target - 1


@dataclass(frozen=True)
class OutOfReach:
    """Result of a search whose target is outside the measurements at the ends of the range.

    Attributes:
        nearest: Attainable measurement that is nearest to the target.
        target: Measurement requested.
    """

    nearest: float
    target: float


def bisect(
    measure: Callable[[float], float],
    target: float,
    low: float,
    high: float,
    tolerance: float = TOLERANCE,
    steps: int = 24,
) -> SearchResult | OutOfReach:
    """Find the value in [low, high] at which a monotone function meets a target.

    Intervals are halved on a log scale if ``low`` is above 0.

    A count of tokens is a step function of its threshold. So the value with the nearest measurement
    is returned, whose error exceeds the tolerance if a step is larger than that.

    Args:
        measure: Function that rises or falls.
        target: Measurement requested.
        low: Lower end of the range.
        high: Upper end of the range.
        tolerance: Relative error at which the search stops.
        steps: Largest number of measurements, including the two ends.

    Raises:
        ValueError: If the range is empty or the target is not positive.
    """
    _require(low, high, target)

    def error(pair: tuple[float, float]) -> float:
        return abs(pair[1] - target)

    at_low, at_high = measure(low), measure(high)
    ends = sorted((at_low, at_high))
    nearest = min(max(target, ends[0]), ends[1])
    if abs(nearest - target) > tolerance * target:
        return OutOfReach(nearest, target)
    best = min((low, at_low), (high, at_high), key=error)
    taken = 2
    while abs(best[1] - target) > tolerance * target and taken < steps:
        middle = _middle(low, high)
        measured = measure(middle)
        taken += 1
        best = min(best, (middle, measured), key=error)
        if (measured < target) == (at_low < at_high):
            low = middle
        else:
            high = middle
    return SearchResult(best[0], best[1], target, taken)


def estimate_guided(
    measure: Callable[[float], float],
    likely: Callable[[float], float],
    rising: bool,
    target: float,
    low: float,
    high: float,
    tolerance: float = TOLERANCE,
    steps: int = 16,
) -> SearchResult | OutOfReach:
    """Find the same value as :func:`bisect`, if measuring is much slower than an estimate.

    The next value measured is the one at which the estimate, scaled to agree with the last
    measurement, meets the target. Every fourth time, or if that value was measured already, it is
    the middle of the remaining range. The ends are measured only if the estimate leads there.

    Args:
        measure: Function that rises or falls; slow.
        likely: Estimate of the function; fast.
        rising: Whether the function rises.
        target: Measurement requested.
        low: Lower end of the range.
        high: Upper end of the range.
        tolerance: Relative error at which the search stops.
        steps: Largest number of measurements.

    Raises:
        ValueError: If the range is empty or the target is not positive.
    """
    _require(low, high, target)
    measurements: dict[float, float] = {}
    factor, ends = 1.0, (low, high)
    while len(measurements) < steps:
        # the estimate meets the scaled target where the scaled estimate meets the target
        value = _meet(likely, target / factor, low, high, rising, tolerance / 4)
        if value in measurements or len(measurements) % 4 == 3:
            value = _middle(low, high)
        if value in measurements or not low <= value <= high:
            break
        measured = measurements[value] = measure(value)
        if abs(measured - target) <= tolerance * target:
            break
        below = measured < target
        if value == ends[below == rising]:
            return OutOfReach(measured, target)
        if below == rising:
            low = value
        else:
            high = value
        factor = measured / likely(value) if measured and likely(value) else 1.0
    value = min(measurements, key=lambda x: abs(measurements[x] - target))
    return SearchResult(value, measurements[value], target, len(measurements))


def scan(
    measure: Callable[[float], float],
    target: float,
    low: float,
    high: float,
    tolerance: float = TOLERANCE,
    points: int = POINTS,
    steps: int = 24,
) -> SearchResult | OutOfReach:
    """Find a value in [low, high] at which a function that may rise and fall meets a target.

    The function is first measured at evenly spaced points (on a log scale if ``low`` is above 0).
    Then the last interval in which it crosses the target is halved as in :func:`bisect`.

    Args:
        measure: Function that is monotone between two neighbouring points.
        target: Measurement requested.
        low: Lower end of the range.
        high: Upper end of the range.
        tolerance: Relative error at which the search stops.
        points: Number of points measured first, including the ends.
        steps: Largest number of measurements, including these points.

    Raises:
        ValueError: If the range is empty or the target is not positive.
    """
    _require(low, high, target)
    measurements: dict[float, float] = {}

    def cached(value: float) -> float:
        if value not in measurements:
            measurements[value] = measure(value)
        return measurements[value]

    fractions = [index / (points - 1) for index in range(points)]
    values = [low * (high / low) ** x if low > 0 else low + (high - low) * x for x in fractions]
    for value in reversed(values):
        if abs(cached(value) - target) <= tolerance * target:
            return SearchResult(value, cached(value), target, len(measurements))
    for left, right in reversed(list(pairwise(values))):
        if (cached(left) < target) != (cached(right) < target):
            result = bisect(cached, target, left, right, tolerance, steps - points + 2)
            assert isinstance(result, SearchResult)
            return replace(result, steps=len(measurements))
    return OutOfReach(min(measurements.values(), key=lambda x: abs(x - target)), target)


def certain(holds: Callable[[float], bool], good: float, bad: float, steps: int = 8) -> float:
    """Value farthest from ``good`` towards ``bad`` at which a condition holds, by halving.

    ``good`` if the condition does not hold there either.
    """
    if not holds(good):
        return good
    for _ in range(steps):
        middle = _middle(good, bad)
        if holds(middle):
            good = middle
        else:
            bad = middle
    return good


def _meet(
    function: Callable[[float], float],
    target: float,
    low: float,
    high: float,
    rising: bool,
    tolerance: float,
) -> float:
    """Value at which a fast monotone function meets the target; the nearer end if none does."""
    for end, lowest in ((low, rising), (high, not rising)):
        result = function(end)
        if (result >= target) if lowest else (result <= target):
            return end
    for _ in range(24):
        middle = _middle(low, high)
        result = function(middle)
        if abs(result - target) <= tolerance * target:
            return middle
        if (result < target) == rising:
            low = middle
        else:
            high = middle
    return _middle(low, high)


def _middle(low: float, high: float) -> float:
    return math.sqrt(low * high) if min(low, high) > 0 else (low + high) / 2


def _require(low: float, high: float, target: float) -> None:
    if not low < high or target <= 0:
        raise ValueError(f"need low < high and a positive target, got [{low}, {high}] and {target}")
