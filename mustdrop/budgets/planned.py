"""The executed average that follows from the fields of a resolved config, before a run.

A count that a user sets replaces the one that a closed form computed from the budget, so the run
would have another number of tokens than its name says. Knows numbers and names of fields only; if
the number of tokens depends on the prompt, there is nothing to check.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from mustdrop.budgets.schedules import average, recycled

# Largest difference in tokens that rounding may cause; PyramidDrop rounds down.
TOLERANCE = 1.0
# Fields that hold counts, and fields that state where the counts apply.
_FIELDS = ("keep", "dominant", "contextual", "merged_per_block", "ratios", "layer", "layers")

Node = Mapping[str, Any]


def require_planned(config: Mapping[str, Any]) -> None:
    """Check that the counts in a resolved config meet its budget.

    Raises:
        ValueError: If they give another executed average, or the method chooses them itself.
    """
    budget = config["budget"]
    if not budget:
        return
    tokens, stages = float(budget["tokens"]), (config["vision"], config["prefill"])
    if config["vision"] and "keep" in config["vision"] and config["vision"]["keep"] is None:
        raise ValueError(
            "vision.keep=null keeps as many tokens as the method itself chooses, not the "
            f"{tokens:g} of the budget: choose budget=none with it"
        )
    executed = planned(config)
    if executed is None:
        return
    entered, depth = int(config["model"]["vision_tokens"]), int(config["model"]["layers"])
    # a method that drops all tokens after one layer meets a budget in whole layers only
    whole_layers = config["prefill"] is not None and _withdraws(config["prefill"])
    allowed = max(TOLERANCE, entered / depth / 2) if whole_layers else TOLERANCE
    if abs(executed - tokens) > allowed:
        given = [
            f"{name}.{field}={list(node[field]) if _listed(node[field]) else node[field]}"
            for name, node in zip(("vision", "prefill"), stages, strict=True)
            for field in _FIELDS
            if node is not None and field in node
        ]
        raise ValueError(
            f"the budget is an executed average of {tokens:g} tokens, but {', '.join(given)} make "
            f"it {executed:.1f}: do not set the counts, or choose budget=none with them"
        )


def planned(config: Mapping[str, Any]) -> float | None:
    """Executed average on one image; None if it depends on the prompt.

    Also None for values that a strategy refuses (a negative count, a layer that does not exist),
    and for a budget that is out of reach.
    """
    vision, prefill, model = config["vision"], config["prefill"], config["model"]
    entered, depth = int(model["vision_tokens"]), int(model["layers"])
    if config["key_tokens"] is not None:  # the number of key tokens depends on the image
        return None
    left = entered if vision is None else _behind_the_encoder(vision, entered)
    if left is None:
        return None
    if prefill is None:
        return float(left)
    layers: Any = prefill.get("layers", [prefill.get("layer")])
    if not _counts(layers, least=-1) or max(layers) > depth - 2:
        return None
    after = _behind_layers(prefill, left)
    return None if after is None else average(left, after, layers, depth)


def _behind_the_encoder(node: Node, entered: int) -> int | None:
    """Number of vision tokens left by a vision strategy with these fields."""
    keep: Any = node.get("keep")
    if _counts([keep]):
        return min(keep, entered)
    pair: list[Any] = [node.get("dominant"), node.get("contextual")]
    if _counts(pair):
        return min(sum(pair), entered)
    if _counts(node.get("merged_per_block")):
        for count in node["merged_per_block"]:
            entered -= min(count, entered // 2)
        return entered
    return None


def _behind_layers(node: Node, entered: int) -> list[int] | None:
    """Number of vision tokens after each drop of a prefill strategy with these fields."""
    if _withdraws(node):
        return [0]
    keep: Any = node.get("keep")
    ratios: Any = node.get("ratios")
    if _listed(ratios) and all(isinstance(r, int | float) and 0 <= r <= 1 for r in ratios):
        counts = [int(entered * ratio) for ratio in ratios]
        return [min(counts[: end + 1]) for end in range(len(counts))]
    if _counts([keep]):
        return [min(keep, entered)]
    if _counts(keep) and "per_cluster" in node:
        return recycled(entered, keep, node["recycle"], node["per_cluster"])
    return None


def _withdraws(node: Node) -> bool:
    """Whether a prefill strategy has a layer and no count, so that it drops all tokens there."""
    return {name for name in node if not name.startswith("_")} == {"layer"}


def _listed(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _counts(values: Any, least: int = 0) -> bool:
    """Whether a value is a list of integers that are at least ``least``."""
    return _listed(values) and all(
        isinstance(value, int) and not isinstance(value, bool) and value >= least
        for value in values
    )
