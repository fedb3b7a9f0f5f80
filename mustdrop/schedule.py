"""Executed average of a method on one image, from its strategies, before any prompt is seen.

Knows nothing about models and configs.
"""

from dataclasses import fields, replace
from typing import Any

from mustdrop.budget import Budget, average
from mustdrop.strategy import PrefillStrategy, VisionStrategy

NOTHING = Budget(tokens=0)


def executed_average(
    vision: VisionStrategy | None, prefill: PrefillStrategy | None, entered: int, depth: int
) -> float | None:
    """Executed average of a prompt with one image; None if it depends on the prompt.

    Also None if the prefill strategy names a layer after which this depth cannot drop.

    Args:
        vision: Stage 1, with counts in place of budgets.
        prefill: Stage 2, with counts in place of budgets.
        entered: Number of vision tokens of the image.
        depth: Number of decoder layers.
    """
    left = entered if vision is None else vision.left(entered)
    if left is None:
        return None
    if prefill is None:
        return float(left)
    layers = prefill.layers
    if not all(-1 <= layer <= depth - 2 for layer in layers):
        return None
    after = prefill.left(left)
    return None if after is None else average(left, after, layers, depth)


def least_average(
    strategy: VisionStrategy | PrefillStrategy, entered: int, blocks: int, depth: int
) -> float | None:
    """Smallest executed average that a strategy can reach by the counts that follow from a budget.

    None if it depends on the prompt.

    Args:
        strategy: Strategy with budgets in place of counts.
        entered: Number of vision tokens of an image.
        blocks: Number of encoder blocks up to and including the one the projector reads.
        depth: Number of decoder layers.
    """
    fewest = with_budget(strategy, NOTHING)
    if isinstance(fewest, VisionStrategy):
        return executed_average(fewest.plan(entered, blocks), None, entered, depth)
    return executed_average(None, fewest.plan(entered, depth), entered, depth)


def with_budget(strategy: Any, budget: Budget) -> Any:
    """Replace the budget in every field of a strategy that holds one."""
    held = [field.name for field in fields(strategy)]
    return replace(
        strategy,
        **{name: budget for name in held if isinstance(getattr(strategy, name), Budget)},
    )
