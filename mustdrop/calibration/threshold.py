"""Search for the threshold at which a method meets a budget. Knows no benchmark."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from mustdrop.budget import Budget
from mustdrop.calibration.replay import CountRange, Replay
from mustdrop.calibration.search import (
    POINTS,
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
    field_path: str,
    budget: Budget,
    low: float,
    high: float,
    tolerance: float,
    points: int = POINTS,
) -> SearchResult | OutOfReach:
    """Find the value of a field at which a method meets a budget, with few passes of the model.

    If the replay determines all counts, no pass is needed. If it determines those of the first
    dropping layer, it narrows the range and estimates where to measure. If another stage follows
    the vision stage, points over the remaining range are measured, since the executed average may
    then rise and fall: gamma is a share of all attention, so fewer tokens may mean that fewer are
    dropped.

    Args:
        measure: Executed average at a value, measured by running the model; for a share the mean
            over prompts of its share of the prompt's cells.
        replay: Result of :func:`mustdrop.calibration.observe.observe`; None if nothing is known.
        dropper: Method with the threshold.
        field_path: Stage and field of the threshold, like ``prefill.gamma``.
        budget: Budget to meet.
        low: Lower end of the range.
        high: Upper end of the range.
        tolerance: Relative error of the executed average.
        points: Number of values measured first, over the range, if nothing is known.
    """
    shares = budget.share is not None
    target = budget.target(1)
    if replay is None:
        return scan(measure, target, low, high, tolerance, points)

    def known(value: float, likely: bool = False) -> CountRange:
        return replay.range(with_field(dropper, field_path, value), likely, shares)

    if all(known(end).low == known(end).high for end in (low, high)):
        result = bisect(lambda x: known(x).high, target, low, high, tolerance, steps=60)
        return replace(result, steps=0) if isinstance(result, SearchResult) else result
    rising = known(low).high < known(high).high

    def under(value: float) -> bool:
        return known(value).high < (1 - tolerance) * target

    def over(value: float) -> bool:
        return known(value).low > (1 + tolerance) * target

    left, right = (under, over) if rising else (over, under)
    ends = certain(left, low, high), certain(right, high, low)
    if field_path.startswith("vision."):
        return scan(measure, target, *ends, tolerance)
    return estimate_guided(
        measure, lambda x: known(x, True).likely, rising, target, *ends, tolerance
    )


def with_field(dropper: TokenDropper, field_path: str, value: float | int) -> TokenDropper:
    """The dropper with another value of one field; ``field_path`` is like ``prefill.gamma``.

    Raises:
        ValueError: If there is no such stage or field.
    """
    stage, _, name = field_path.partition(".")
    strategy: Any = getattr(dropper, stage, None)
    if strategy is None or name not in getattr(strategy, "__dataclass_fields__", {}):
        raise ValueError(
            f"{field_path} is no field of a stage in use; write stage.field, as in prefill.gamma"
        )
    return replace(dropper, **{stage: replace(strategy, **{name: value})})


@torch.inference_mode()
def executed(
    model: Any,
    dropper: TokenDropper,
    batches: Sequence[Mapping[str, Any]],
    tick: Callable[[], None] = lambda: None,
    shares: bool = False,
) -> list[float]:
    """Executed average of each prompt: vision tokens that enter a layer, averaged over layers.

    Only the prefill runs.

    Args:
        model: Model that a dropper can be attached to.
        dropper: Method to measure, without its decode stage, which changes the cache only.
        batches: Inputs of ``generate``.
        tick: Called after each batch.
        shares: Whether to divide by the number of cells that the prompt's vision tokens show;
            prompts without any are left out.
    """
    entered: list[float] = []
    for inputs in batches:
        with replace(dropper, decode=None).attach(model) as run:
            model.generate(**inputs, do_sample=False, max_new_tokens=1)
        run.require_finite()
        for ledger in run.ledgers:
            average, cells = ledger.counts().executed_average, ledger.shown_cells
            if not shares:
                entered.append(average)
            elif cells:
                entered.append(average / cells)
        tick()
    return entered
