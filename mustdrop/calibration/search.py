"""Where a function of one number meets a target, in few measurements. Knows no model."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

TOLERANCE = 0.01


@dataclass(frozen=True)
class SearchResult:
    """Where a search ended.

    Attributes:
        value: The threshold.
        measured: What it gave.
        target: What was asked for.
        steps: Measurements taken; 0 where they could be computed instead.
    """

    value: float
    measured: float
    target: float
    steps: int

    @property
    def error(self) -> float:
        """Relative to the target."""
        return self.measured / self.target - 1


@dataclass(frozen=True)
class OutOfReach:
    """The target lies outside what the ends of the range give.

    Attributes:
        nearest: The attainable value nearest to the target.
        target: What was asked for.
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
    """The value in [low, high] at which a monotone function meets a target.

    Intervals are halved on a log scale where ``low`` is above 0.

    A count of tokens is a step function of its threshold, so the nearest value seen is returned,
    and it may miss the tolerance where a step is larger than that.

    Args:
        measure: Rising or falling, either will do.
        target: What it is to give.
        low: One end.
        high: The other.
        tolerance: Relative error at which the search stops.
        steps: Measurements at most, the two ends counted.

    Raises:
        ValueError: If the range is empty or the target is not positive.
    """
    _require(low, high, target)
    at_low, at_high = measure(low), measure(high)
    ends = sorted((at_low, at_high))
    nearest = min(max(target, ends[0]), ends[1])
    if abs(nearest - target) > tolerance * target:
        return OutOfReach(nearest, target)
    best = min((low, at_low), (high, at_high), key=lambda seen: abs(seen[1] - target))
    taken = 2
    while abs(best[1] - target) > tolerance * target and taken < steps:
        middle = _middle(low, high)
        found = measure(middle)
        taken += 1
        best = min(best, (middle, found), key=lambda seen: abs(seen[1] - target))
        if (found < target) == (at_low < at_high):
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
    """As :func:`bisect`, for a measurement that is dear beside an estimate of it.

    What is measured next is where the estimate, scaled to agree with the last measurement, meets
    the target; every fourth time, and where that would repeat one, the middle of what is left. The
    ends are measured only if the estimate leads there.

    Args:
        measure: Rising or falling.
        likely: The estimate; cheap.
        rising: Which of the two.
        target: What is to be met.
        low: One end.
        high: The other.
        tolerance: Relative error at which the search stops.
        steps: Measurements at most.

    Raises:
        ValueError: If the range is empty or the target is not positive.
    """
    _require(low, high, target)
    seen: dict[float, float] = {}
    factor, ends = 1.0, (low, high)
    while len(seen) < steps:
        # the estimate meets the scaled target where the scaled estimate meets the target
        value = _meet(likely, target / factor, low, high, rising, tolerance / 4)
        if value in seen or len(seen) % 4 == 3:
            value = _middle(low, high)
        if value in seen or not low <= value <= high:
            break
        found = seen[value] = measure(value)
        if abs(found - target) <= tolerance * target:
            break
        below = found < target
        if value == ends[below == rising]:
            return OutOfReach(found, target)
        if below == rising:
            low = value
        else:
            high = value
        factor = found / likely(value) if found and likely(value) else 1.0
    value = min(seen, key=lambda x: abs(seen[x] - target))
    return SearchResult(value, seen[value], target, len(seen))


def scan(
    measure: Callable[[float], float],
    target: float,
    low: float,
    high: float,
    tolerance: float = TOLERANCE,
    points: int = 9,
    steps: int = 24,
) -> SearchResult | OutOfReach:
    """As :func:`bisect`, for a function that may rise and fall.

    It is measured at evenly spaced points first (on a log scale where ``low`` is above 0), and the
    interval in which it last crosses the target is halved.

    Args:
        measure: Need not be monotone, but between two neighbouring points.
        target: What it is to give.
        low: One end.
        high: The other.
        tolerance: Relative error at which the search stops.
        points: Measured first, the ends among them.
        steps: Measurements at most, those counted.

    Raises:
        ValueError: If the range is empty or the target is not positive.
    """
    _require(low, high, target)
    seen: dict[float, float] = {}

    def once(value: float) -> float:
        if value not in seen:
            seen[value] = measure(value)
        return seen[value]

    ways = [place / (points - 1) for place in range(points)]
    places = [low * (high / low) ** way if low > 0 else low + (high - low) * way for way in ways]
    for value in reversed(places):
        if abs(once(value) - target) <= tolerance * target:
            return SearchResult(value, once(value), target, len(seen))
    for left, right in reversed(list(pairwise(places))):
        if (once(left) < target) != (once(right) < target):
            found = bisect(once, target, left, right, tolerance, steps - points + 2)
            assert isinstance(found, SearchResult)
            return SearchResult(found.value, found.measured, target, len(seen))
    return OutOfReach(min(seen.values(), key=lambda at: abs(at - target)), target)


def certain(holds: Callable[[float], bool], good: float, bad: float, steps: int = 8) -> float:
    """How far from ``good`` towards ``bad`` something surely holds; ``good`` if not even there."""
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
    """Where a cheap monotone function meets the target; the nearer end where it does not."""
    for end, short in ((low, rising), (high, not rising)):
        at = function(end)
        if (at >= target) if short else (at <= target):
            return end
    for _ in range(24):
        middle = _middle(low, high)
        at = function(middle)
        if abs(at - target) <= tolerance * target:
            return middle
        if (at < target) == rising:
            low = middle
        else:
            high = middle
    return _middle(low, high)


def _middle(low: float, high: float) -> float:
    return math.sqrt(low * high) if min(low, high) > 0 else (low + high) / 2


def _require(low: float, high: float, target: float) -> None:
    if not low < high or target <= 0:
        raise ValueError(f"need low < high and a positive target, got [{low}, {high}] and {target}")
