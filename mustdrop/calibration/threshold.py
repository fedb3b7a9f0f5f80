"""The threshold that gives a method the executed average asked for. Knows no benchmark."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from mustdrop.calibration.replay import CountRange, Replay
from mustdrop.calibration.search import (
    OutOfReach,
    SearchResult,
    bisect,
    certain,
    estimate_guided,
    scan,
)
from mustdrop.dropper import TokenDropper


def threshold(
    measure: Callable[[float], float],
    replay: Replay | None,
    dropper: TokenDropper,
    place: str,
    target: float,
    low: float,
    high: float,
    tolerance: float,
) -> SearchResult | OutOfReach:
    """The value of a field at which a method meets a budget, in as few passes as can be had.

    Where a replay knows all, no pass is needed. Where it knows the first dropping layer, it narrows
    the range and says where to measure. Merging that another stage follows is measured at points
    over what the replay leaves, since fewer tokens may then be dropped less: gamma is a share of
    all attention, whatever there is to share it.

    Args:
        measure: The executed average at a value, by running the model.
        replay: What :func:`mustdrop.calibration.observe.watch` saw; None: nothing is known.
        dropper: The method.
        place: Stage and field, like ``prefill.gamma``.
        target: The budget.
        low: One end of the range.
        high: The other.
        tolerance: Of the executed average, relative.
    """
    if replay is None:
        return scan(measure, target, low, high, tolerance)

    def known(value: float, likely: bool = False) -> CountRange:
        return replay.range(with_field(dropper, place, value), likely)

    if all(known(end).low == known(end).high for end in (low, high)):
        found = bisect(lambda x: known(x).high, target, low, high, tolerance, steps=60)
        return replace(found, steps=0) if isinstance(found, SearchResult) else found
    rising = known(low).high < known(high).high

    def under(value: float) -> bool:
        return known(value).high < (1 - tolerance) * target

    def over(value: float) -> bool:
        return known(value).low > (1 + tolerance) * target

    left, right = (under, over) if rising else (over, under)
    ends = certain(left, low, high), certain(right, high, low)
    if place == "vision.tau":
        return scan(measure, target, *ends, tolerance)
    return estimate_guided(
        measure, lambda x: known(x, True).likely, rising, target, *ends, tolerance
    )


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
def executed(
    model: Any,
    dropper: TokenDropper,
    batches: Sequence[Mapping[str, Any]],
    tick: Callable[[], None] = lambda: None,
) -> list[float]:
    """Of each prompt, the mean over layers of the vision tokens that enter; the prefill alone runs.

    Args:
        model: Any that a dropper can be attached to.
        dropper: What is measured; its last stage, which cuts the cache only, is left out.
        batches: Inputs of ``generate``.
        tick: Called after each batch.
    """
    entered: list[float] = []
    for inputs in batches:
        with replace(dropper, decode=None).attach(model) as run:
            model.generate(**inputs, do_sample=False, max_new_tokens=1)
        run.require_finite()
        entered += [ledger.counts().executed_average for ledger in run.ledgers]
        tick()
    return entered
