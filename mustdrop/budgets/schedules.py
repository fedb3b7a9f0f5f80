"""Token counts, ratios and layers that meet a budget, for methods that drop in several layers.

A strategy's yaml calls these functions by name, as in
``ratios: ${pyramid_ratios:${budget},${model},${.layers}}``. The result is ``floor <n>`` if the
budget is below n, the least executed average of the method. A function takes every field that its
result depends on. Knows numbers only.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from scipy.optimize import brentq

from mustdrop.budgets.closed_form import FLOOR, budget_facts, floor


def average(entered: int, after: Sequence[int | float], layers: Sequence[int], depth: int) -> float:
    """Executed average of a schedule.

    Args:
        entered: Number of tokens at the language model's input.
        after: Number of tokens left after each drop.
        layers: Layers after which tokens are dropped, ascending.
        depth: Number of decoder layers.
    """
    ends = [*(layer + 1 for layer in layers), depth]
    held = zip([entered, *after], [0, *ends], ends, strict=False)
    return sum(tokens * (end - start) for tokens, start, end in held) / depth


def pyramid_ratios(
    budget: Mapping[str, Any] | None, model: Mapping[str, Any], layers: Sequence[int]
) -> list[float] | str:
    """Ratios l, l^2, l^3, ... of PyramidDrop whose executed average is the budget.

    PyramidDrop rounds each count down, so the executed average is up to one token lower.
    """
    tokens, entered, depth = budget_facts(budget, model)
    _require_ascending(layers, depth)
    lowest = floor(entered, depth, layers[0])
    if tokens < lowest:
        return f"{FLOOR} {lowest:g}"

    def error(ratio: float) -> float:
        kept = [entered * ratio**step for step in range(1, len(layers) + 1)]
        return average(entered, kept, layers, depth) - tokens

    ratio = 1.0 if tokens >= entered else _root(error)
    return [round(ratio**step, 6) for step in range(1, len(layers) + 1)]


def sparsevlm_keep(
    budget: Mapping[str, Any] | None,
    model: Mapping[str, Any],
    layers: Sequence[int],
    recycle: float = 0.3,
    per_cluster: int = 10,
) -> list[int] | str:
    """Fixed counts of SparseVLM whose executed average, including recycled tokens, is the budget.

    The counts are N l, N l^2, ... rounded; the last one makes up for rounding. The authors' counts
    (300, 200, 110 for "192" and so on) meet their budgets if tokens are counted after each layer's
    drop; with those for 192, 128 and 64, 206.5, 145.4 and 82.3 tokens enter a layer on average.

    Args:
        budget: Config of the budget.
        model: Config of the model.
        layers: Layers after which SparseVLM acts.
        recycle: Fraction of the dropped tokens that is merged.
        per_cluster: Number of merged tokens for each further cluster.

    Raises:
        ValueError: If no budget was chosen, or another argument is out of range.
    """
    tokens, entered, depth = budget_facts(budget, model)
    _require_ascending(layers, depth)

    def executed(counts: Sequence[int]) -> float:
        return average(entered, recycled(entered, counts, recycle, per_cluster), layers, depth)

    lowest = executed([0] * len(layers))
    if tokens < lowest:
        return f"{FLOOR} {lowest:g}"

    def kept(ratio: float) -> list[int]:
        return [round(entered * ratio**step) for step in range(1, len(layers) + 1)]

    if tokens >= entered:
        return kept(1.0)
    *first, _ = kept(_root(lambda ratio: executed(kept(ratio)) - tokens))
    last = range((first or [entered])[-1] + 1)
    return [*first, min(last, key=lambda count: abs(executed([*first, count]) - tokens))]


def recycled(
    entered: int, counts: Sequence[int], recycle: float = 0.3, per_cluster: int = 10
) -> list[int]:
    """Number of tokens after each drop of SparseVLM: kept tokens and clusters of recycled ones.

    Raises:
        ValueError: If ``recycle`` is not in [0, 1], or ``per_cluster`` is not a count of 1 or more.
    """
    if not isinstance(recycle, int | float) or not 0 <= recycle <= 1:
        raise ValueError(f"recycle must be in [0, 1], got {recycle!r}")
    if not isinstance(per_cluster, int) or per_cluster < 1:
        raise ValueError(f"per_cluster must be a count of 1 or more, got {per_cluster!r}")
    left = []
    for count in counts:
        before = left[-1] if left else entered
        leaving = before - min(count, before)
        members = min(int(recycle * leaving) + 1, leaving)
        left.append(before - leaving + min(members // per_cluster + 1, members))
    return left


def tome_removed(budget: Mapping[str, Any] | None, model: Mapping[str, Any]) -> list[int] | str:
    """Number of tokens that ToMe merges in each block to reach the budget, as even as possible.

    A block can merge at most half of its tokens; the last blocks merge fewer if the even share is
    more than that.
    """
    tokens, entered, _ = budget_facts(budget, model)
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


def vtw_layer(budget: Mapping[str, Any] | None, model: Mapping[str, Any]) -> int:
    """Layer after which VTW drops all vision tokens, nearest to the budget in whole layers."""
    tokens, entered, depth = budget_facts(budget, model)
    return min(round(tokens * depth / entered), depth - 1) - 1


def _require_ascending(layers: Sequence[int], depth: int) -> None:
    """Check that tokens can be dropped after these layers.

    Raises:
        ValueError: If ``layers`` is not a list of existing layers in ascending order.
    """
    listed = isinstance(layers, Sequence) and not isinstance(layers, str)
    if (
        not listed
        or not layers
        or any(isinstance(layer, bool) or not isinstance(layer, int) for layer in layers)
        or list(layers) != sorted({*layers})
        or not -1 <= layers[0] <= layers[-1] <= depth - 2
    ):
        raise ValueError(
            f"layers must be a list of ascending layers from -1 to {depth - 2}, got {layers}"
        )


def _root(error: Callable[[float], float]) -> float:
    """Ratio in [0, 1] at which the error is 0."""
    return cast(float, brentq(error, 0.0, 1.0))
