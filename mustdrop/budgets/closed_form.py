"""Budgets in closed form: what to keep so that the executed average is T, and where that ends.

A strategy that acts once, after layer l of L, on N vision tokens and keeps k of them has the
executed average

    T = ((l + 1) N + (L - l - 1) k) / L.

Knows numbers only; thresholds, which have no closed form, come from
:mod:`mustdrop.calibration.threshold`.
"""

from collections.abc import Mapping
from typing import Any

FLOOR = "floor"
STAGES = ("vision", "key_tokens", "prefill", "decode")


def keep_for(tokens: float, vision_tokens: int, layers: int, layer: int = -1) -> int | None:
    """The count k whose executed average is nearest to T; None where even k = 0 lies above it.

    Args:
        tokens: T, the budget.
        vision_tokens: N, those that enter.
        layers: L, of the decoder.
        layer: l, after which the strategy acts; -1: before the language model.

    Raises:
        ValueError: If there is no such layer, or the budget is no count.
    """
    if isinstance(layer, bool) or not isinstance(layer, int) or not -1 <= layer <= layers - 2:
        raise ValueError(f"this model can drop after layers -1 to {layers - 2}, got {layer}")
    if tokens < 0:
        raise ValueError(f"a budget is a count of tokens, 0 or more, got {tokens}")
    if tokens < floor(vision_tokens, layers, layer):
        return None
    keep = (layers * tokens - (layer + 1) * vision_tokens) / (layers - layer - 1)
    return min(round(keep), vision_tokens)


def floor(vision_tokens: int, layers: int, layer: int = -1) -> float:
    """The executed average of keeping nothing after that layer."""
    return (layer + 1) * vision_tokens / layers


def budget_facts(
    budget: Mapping[str, Any] | None, model: Mapping[str, Any]
) -> tuple[float, int, int]:
    """The budget's tokens, the model's vision tokens and decoder layers.

    Raises:
        ValueError: If no budget was chosen.
    """
    if budget is None:
        raise ValueError(
            "no budget to compute it from: choose one (budget=t192), or give the value itself"
        )
    return float(budget["tokens"]), int(model["vision_tokens"]), int(model["layers"])


def budget_keep(
    budget: Mapping[str, Any] | None,
    model: Mapping[str, Any],
    layer: int = -1,
    share: float = 1.0,
) -> int | str:
    """What ``${budget_keep:...}`` in a strategy's yaml stands for: a count, or ``floor <n>``.

    Args:
        budget: Chosen.
        model: Likewise.
        layer: After which the strategy acts.
        share: Of the count, where a method has several that add up.

    Raises:
        ValueError: If no budget was chosen.
    """
    tokens, vision_tokens, layers = budget_facts(budget, model)
    keep = keep_for(tokens, vision_tokens, layers, layer)
    if keep is None:
        return f"{FLOOR} {floor(vision_tokens, layers, layer):g}"
    return round(keep * share)


def budget_share(budget: Mapping[str, Any] | None, model: Mapping[str, Any]) -> float:
    """What ``${budget_share:...}`` in an image control's yaml stands for: T / N, at most 1.

    Raises:
        ValueError: If no budget was chosen.
    """
    tokens, vision_tokens, _ = budget_facts(budget, model)
    return min(1.0, tokens / vision_tokens)


def budget_floor(config: Mapping[str, Any]) -> float | None:
    """The least executed average of a resolved config whose budget lies below it, else None."""
    budget = config["budget"]
    if budget and budget["floor"] is not None and budget["floor"] > budget["tokens"]:
        return float(budget["floor"])
    for stage in STAGES:
        for value in (config[stage] or {}).values():
            if isinstance(value, str) and value.startswith(f"{FLOOR} "):
                return float(value.removeprefix(FLOOR))
    return None
