"""The threshold that gives a method the executed average asked for. Knows no benchmark."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from mustdrop.dropper import TokenDropper

TOLERANCE = 0.01


@dataclass(frozen=True)
class Found:
    """Where a search ended.

    Attributes:
        value: The threshold.
        measured: What it gave.
        target: What was asked for.
        steps: Measurements taken.
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
) -> Found | OutOfReach:
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
    if not low < high or target <= 0:
        raise ValueError(f"need low < high and a positive target, got [{low}, {high}] and {target}")
    at_low, at_high = measure(low), measure(high)
    ends = sorted((at_low, at_high))
    nearest = min(max(target, ends[0]), ends[1])
    if abs(nearest - target) > tolerance * target:
        return OutOfReach(nearest, target)
    best = min((low, at_low), (high, at_high), key=lambda seen: abs(seen[1] - target))
    taken = 2
    while abs(best[1] - target) > tolerance * target and taken < steps:
        middle = math.sqrt(low * high) if low > 0 else (low + high) / 2
        found = measure(middle)
        taken += 1
        best = min(best, (middle, found), key=lambda seen: abs(seen[1] - target))
        if (found < target) == (at_low < at_high):
            low = middle
        else:
            high = middle
    return Found(best[0], best[1], target, taken)


def with_field(dropper: TokenDropper, place: str, value: float | int) -> TokenDropper:
    """The dropper with one hyper-parameter set; ``place`` is written ``prefill.gamma``.

    Raises:
        ValueError: If there is no such stage or field.
    """
    stage, _, name = place.partition(".")
    strategy: Any = getattr(dropper, stage, None)
    if strategy is None or name not in getattr(strategy, "__dataclass_fields__", {}):
        raise ValueError(
            f"{place} is no field of a stage in use; write stage.field, as in prefill.gamma"
        )
    return replace(dropper, **{stage: replace(strategy, **{name: value})})


@torch.inference_mode()
def executed_average(
    model: Any, dropper: TokenDropper, batches: Sequence[Mapping[str, Any]]
) -> float:
    """Mean over prompts of the vision tokens that enter a layer; the prefill alone runs."""
    entered: list[float] = []
    for inputs in batches:
        with dropper.attach(model) as run:
            model.generate(**inputs, do_sample=False, max_new_tokens=1)
        entered += [ledger.counts().executed_average for ledger in run.ledgers]
    return sum(entered) / len(entered)
