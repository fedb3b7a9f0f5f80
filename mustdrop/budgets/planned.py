"""The executed average that the fields of a resolved config stand for, before anything runs.

A count that is given by hand replaces what a closed form had computed from the budget, so the run
would have another number of tokens than its name says. Knows numbers and the names of fields only;
where the number of tokens depends on the prompt, there is nothing to check.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from mustdrop.budgets.schedules import average, recycled

# What whole tokens, or PyramidDrop's rounding down, may make of a budget.
TOLERANCE = 1.0
# Fields that hold counts, and those that say where they apply.
_FIELDS = ("keep", "dominant", "contextual", "merged_per_block", "ratios", "layer", "layers")

Node = Mapping[str, Any]


def require_planned(config: Mapping[str, Any]) -> None:
    """Check that the counts in a resolved config are those of its budget.

    Raises:
        ValueError: If they stand for another executed average, or are left to the method.
    """
    budget = config["budget"]
    if not budget:
        return
    tokens, stages = float(budget["tokens"]), (config["vision"], config["prefill"])
    if config["vision"] and "keep" in config["vision"] and config["vision"]["keep"] is None:
        raise ValueError(
            f"vision.keep=null keeps as many tokens as the method itself chooses, not the "
            f"{tokens:g} of the budget: choose budget=none with it"
        )
    average_of = planned(config)
    if average_of is None:
        return
    entered, depth = int(config["model"]["vision_tokens"]), int(config["model"]["layers"])
    # a method that withdraws all tokens after one layer can only meet it in whole layers
    whole_layers = config["prefill"] is not None and _withdraws(config["prefill"])
    allowed = max(TOLERANCE, entered / depth / 2) if whole_layers else TOLERANCE
    if abs(average_of - tokens) > allowed:
        given = [
            f"{name}.{field}={list(node[field]) if _listed(node[field]) else node[field]}"
            for name, node in zip(("vision", "prefill"), stages, strict=True)
            for field in _FIELDS
            if node is not None and field in node
        ]
        raise ValueError(
            f"the budget is an executed average of {tokens:g} tokens, but {', '.join(given)} make "
            f"it {average_of:.1f}: leave the counts to the budget, or choose budget=none with them"
        )


def planned(config: Mapping[str, Any]) -> float | None:
    """The executed average on one image; None where it depends on the prompt.

    What a strategy itself refuses (a negative count, a layer that there is not) gives None, too,
    and so does a budget that is out of reach.
    """
    vision, prefill, model = config["vision"], config["prefill"], config["model"]
    entered, depth = int(model["vision_tokens"]), int(model["layers"])
    if config["key_tokens"] is not None:  # they stay, however many there are
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
    """Vision tokens that a vision strategy with these fields leaves."""
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
    """Vision tokens after each drop of a prefill strategy with these fields."""
    if _withdraws(node):
        return [0]
    keep: Any = node.get("keep")
    ratios: Any = node.get("ratios")
    if _listed(ratios) and all(isinstance(r, int | float) and 0 <= r <= 1 for r in ratios):
        counts = [int(entered * ratio) for ratio in ratios]
        return [min(counts[: at + 1]) for at in range(len(counts))]
    if _counts([keep]):
        return [min(keep, entered)]
    if _counts(keep) and "per_cluster" in node:
        return recycled(entered, keep, node["recycle"], node["per_cluster"])
    return None


def _withdraws(node: Node) -> bool:
    """Whether a prefill strategy has a layer and no count: it keeps nothing after that layer."""
    return {name for name in node if not name.startswith("_")} == {"layer"}


def _listed(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _counts(values: Any, least: int = 0) -> bool:
    """Whether something is a list of whole numbers, none below the least."""
    return _listed(values) and all(
        isinstance(value, int) and not isinstance(value, bool) and value >= least
        for value in values
    )
