"""Budgets of methods that drop in several places: what to keep in each, in closed form.

Each function is what an entry of the same name in a strategy's yaml stands for, as in
``ratios: ${pyramid_ratios:${budget},${model},${.layers}}``; where the method cannot go as low as
the budget, it is ``floor <n>``. Knows numbers only.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from scipy.optimize import brentq

from mustdrop.harness.budget import FLOOR, floor, required


def average(entered: int, after: Sequence[int | float], layers: Sequence[int], depth: int) -> float:
    """Executed average of a schedule.

    Args:
        entered: Tokens at the language model's input.
        after: Tokens left after each drop.
        layers: The layers after which they are dropped, ascending.
        depth: Decoder layers.
    """
    ends = [*(layer + 1 for layer in layers), depth]
    held = zip([entered, *after], [0, *ends], ends, strict=False)
    return sum(tokens * (end - start) for tokens, start, end in held) / depth


def pyramid_ratios(
    budget: Mapping[str, Any] | None, model: Mapping[str, Any], layers: Sequence[int]
) -> list[float] | str:
    """PyramidDrop's ratios l, l^2, l^3, ... whose executed average is the budget."""
    tokens, entered, depth = required(budget, model)
    lowest = floor(entered, depth, layers[0])
    if tokens < lowest:
        return f"{FLOOR} {lowest:g}"

    def miss(ratio: float) -> float:
        kept = [entered * ratio**step for step in range(1, len(layers) + 1)]
        return average(entered, kept, layers, depth) - tokens

    ratio = 1.0 if tokens >= entered else _root(miss)
    return [round(ratio**step, 6) for step in range(1, len(layers) + 1)]


def sparsevlm_keep(
    budget: Mapping[str, Any] | None, model: Mapping[str, Any], layers: Sequence[int]
) -> list[int] | str:
    """Fixed counts of SparseVLM whose executed average, recycled tokens included, is the budget.

    N l, N l^2, ... rounded, the last count taking up what rounding left. The authors' own counts
    (300, 200, 110 for "192" and so on) meet their budgets counted after each layer's drop; 206.5,
    145.4 and 82.3 tokens enter a layer on average with those for 192, 128 and 64.
    """
    tokens, entered, depth = required(budget, model)
    lowest = floor(entered, depth, layers[0])
    if tokens < lowest:
        return f"{FLOOR} {lowest:g}"

    def kept(ratio: float) -> list[int]:
        return [round(entered * ratio**step) for step in range(1, len(layers) + 1)]

    def miss(counts: Sequence[int]) -> float:
        return average(entered, recycled(entered, counts), layers, depth) - tokens

    if tokens >= entered:
        return kept(1.0)
    *first, last = kept(_root(lambda ratio: miss(kept(ratio))))
    around = range(max(0, last - 20), last + 21)
    return [*first, min(around, key=lambda count: abs(miss([*first, count])))]


def recycled(entered: int, counts: Sequence[int]) -> list[int]:
    """Tokens after each of SparseVLM's drops: those kept and the clusters of those recycled."""
    left = []
    for count in counts:
        before = left[-1] if left else entered
        deleted = before - min(count, before)
        left.append(before - deleted + (int((int(0.3 * deleted) + 1) / 10) + 1 if deleted else 0))
    return left


def tome_removed(budget: Mapping[str, Any] | None, model: Mapping[str, Any]) -> list[int] | str:
    """ToMe's tokens to merge away in each block, as even as halves allow, to end at the budget.

    No block can merge away more than half of its tokens; the last ones take less where the even
    share is more than that.
    """
    tokens, entered, _ = required(budget, model)
    blocks = int(model["merging_blocks"])
    lowest = -(-entered // 2**blocks)
    left = round(tokens)
    if left < lowest:
        return f"{FLOOR} {lowest}"
    removed: list[int] = []
    for remaining in range(blocks, 0, -1):  # from the last block to the first
        removed.append(min((entered - left) // remaining, left))
        left += removed[-1]
    removed[-1] += entered - left
    return removed[::-1]


def withdraw_layer(budget: Mapping[str, Any] | None, model: Mapping[str, Any]) -> int:
    """VTW's layer: the one after which nothing is left, nearest to the budget in whole layers."""
    tokens, entered, depth = required(budget, model)
    return min(round(tokens * depth / entered), depth - 1) - 1


def _root(miss: Callable[[float], float]) -> float:
    """The ratio in [0, 1] at which nothing is missed."""
    return cast(float, brentq(miss, 0.0, 1.0))
