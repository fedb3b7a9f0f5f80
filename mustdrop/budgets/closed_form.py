"""Token count to keep so that the executed average is T, and the least average possible.

A strategy that acts once, after layer l of L, on N vision tokens and keeps k of them has the
executed average

    T = ((l + 1) N + (L - l - 1) k) / L.

Knows numbers only; thresholds have no closed form, so :mod:`mustdrop.calibration.threshold`
searches for them.
"""

from collections.abc import Mapping
from typing import Any

FLOOR = "floor"
STAGES = ("vision", "key_tokens", "prefill", "decode")


def keep_for(tokens: float, vision_tokens: int, layers: int, layer: int = -1) -> int | None:
    """Count k whose executed average is nearest to T; None if k = 0 is already above T.

    Args:
        tokens: Budget T.
        vision_tokens: Number N of vision tokens that enter.
        layers: Number L of decoder layers.
        layer: Layer l after which the strategy acts; -1 for the language model's input.

    Raises:
        ValueError: If there is no such layer, or the budget is negative.
    """
    if isinstance(layer, bool) or not isinstance(layer, int) or not -1 <= layer <= layers - 2:
        raise ValueError(f"this model can drop after layers -1 to {layers - 2}, got {layer}")
    if tokens < 0:
        raise ValueError(f"a budget must be a count of tokens, 0 or more, got {tokens}")
    if tokens < floor(vision_tokens, layers, layer):
        return None
    keep = (layers * tokens - (layer + 1) * vision_tokens) / (layers - layer - 1)
    return min(round(keep), vision_tokens)


def floor(vision_tokens: int, layers: int, layer: int = -1) -> float:
    """Least executed average: that of keeping no vision token after this layer."""
    return (layer + 1) * vision_tokens / layers


def budget_facts(
    budget: Mapping[str, Any] | None, model: Mapping[str, Any]
) -> tuple[float, int, int]:
    """Tokens of the budget, vision tokens of the model, and its number of decoder layers.

    Raises:
        ValueError: If no budget was chosen.
    """
    if budget is None:
        raise ValueError(
            "there is no budget to compute it from: choose one (budget=t192), or set the value"
        )
    return float(budget["tokens"]), int(model["vision_tokens"]), int(model["layers"])


def budget_keep(
    budget: Mapping[str, Any] | None,
    model: Mapping[str, Any],
    layer: int = -1,
    share: float = 1.0,
) -> int | str:
    """Value of ``${budget_keep:...}`` in a strategy's yaml: a count, or ``floor <n>``.

    ``floor <n>`` means that the budget is below n, the least executed average of the strategy.

    Args:
        budget: Config of the budget.
        model: Config of the model.
        layer: Layer after which the strategy acts.
        share: Fraction of the count, for a method with several counts that add up.

    Raises:
        ValueError: If no budget was chosen.
    """
    tokens, vision_tokens, layers = budget_facts(budget, model)
    keep = keep_for(tokens, vision_tokens, layers, layer)
    if keep is None:
        return f"{FLOOR} {floor(vision_tokens, layers, layer):g}"
    return round(keep * share)


def budget_share(budget: Mapping[str, Any] | None, model: Mapping[str, Any]) -> float:
    """Value of ``${budget_share:...}`` in an image control's yaml: T / N, at most 1.

    Raises:
        ValueError: If no budget was chosen.
    """
    tokens, vision_tokens, _ = budget_facts(budget, model)
    return min(1.0, tokens / vision_tokens)


def budget_floor(config: Mapping[str, Any]) -> float | None:
    """Least executed average of a resolved config if the budget is below it, or else None."""
    budget = config["budget"]
    if budget and budget["floor"] is not None and budget["floor"] > budget["tokens"]:
        return float(budget["floor"])
    for stage in STAGES:
        for value in (config[stage] or {}).values():
            if isinstance(value, str) and value.startswith(f"{FLOOR} "):
                return float(value.removeprefix(FLOOR))
    return None
