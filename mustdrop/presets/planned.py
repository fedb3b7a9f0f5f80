"""The executed average that follows from a resolved config, before a run.

A count that a user sets replaces the one that a strategy computed from the budget, so the run would
have another number of tokens than its name says. If the number of tokens depends on the prompt,
there is nothing to check.
"""

from collections.abc import Mapping
from typing import Any, get_args, get_type_hints

from hydra.errors import InstantiationException
from hydra.utils import instantiate

from mustdrop.budget import Budget

# Largest difference in tokens that rounding may cause; PyramidDrop rounds down.
TOLERANCE = 1.0
USUAL_TOKENS = 2880  # five images of LLaVA-NeXT; counts are checked on it if prompts differ in size


def require_planned(config: Mapping[str, Any]) -> None:
    """Check that the counts in a resolved config meet its budget.

    Raises:
        ValueError: If they give another executed average, or the method chooses them itself.
    """
    from mustdrop.fixed_counts import KeepPerImage  # imports torch

    budget = Budget.read(config["budget"])
    if budget is None:
        return
    vision, prefill = _strategies(config)
    if isinstance(vision, KeepPerImage) and vision.keep is None:
        raise ValueError(
            "vision.keep=null keeps as many tokens as the method itself chooses, not the "
            f"{budget} of the budget: choose budget=none with it"
        )
    executed = planned(config)
    if executed is None:
        return
    entered, depth = usual_tokens(config), int(config["model"]["layers"])
    tokens = min(budget.target(entered), entered)  # a budget above what enters keeps all
    step = 1.0 if prefill is None else prefill.step(entered, depth)
    if abs(executed - tokens) > max(TOLERANCE, step / 2):
        given = [
            (value, f"{stage}.{name}={list(value) if isinstance(value, list | tuple) else value}")
            for stage, strategy in (("vision", vision), ("prefill", prefill))
            if strategy is not None
            for name, value in vars(strategy).items()
            if name in ("layer", "layers") or takes_budget(strategy, name)
        ]
        by_hand = [text for value, text in given if not isinstance(value, Budget)]
        if len(by_hand) < len(given) and executed > tokens:  # counts follow from the budget
            raise ValueError(
                f"budget: {budget} is out of reach: with {', '.join(by_hand) or 'all dropped'} the "
                f"method keeps at least {100 * executed / entered:.4g} % of the vision tokens"
            )
        raise ValueError(
            f"the budget is an executed average of {tokens:g} tokens, but "
            f"{', '.join(text for _, text in given)} make it {executed:.1f}: do not set the "
            "counts, or choose budget=none with them"
        )


def planned(config: Mapping[str, Any]) -> float | None:
    """Executed average on one image; None if it depends on the prompt.

    Also None for values that a strategy refuses (a negative count, a layer that does not exist),
    and for a budget that is out of reach.
    """
    from mustdrop.schedule import executed_average

    if config["key_tokens"] is not None:  # the number of key tokens depends on the image
        return None
    vision, prefill = _strategies(config)
    for stage, strategy in (("vision", vision), ("prefill", prefill)):
        if strategy is None and config[stage] is not None:
            return None
    model, entered = config["model"], usual_tokens(config)
    left: int | None = entered
    if vision is not None:
        vision = vision.plan(entered, int(model["merging_blocks"] or 0))
        left = vision.left(entered)
    if left is not None and prefill is not None:
        prefill = prefill.plan(left, int(model["layers"]))
    return executed_average(vision, prefill, entered, int(model["layers"]))


def usual_tokens(config: Mapping[str, Any]) -> int:
    """Number of vision tokens of a prompt; a usual one if the model's prompts differ in size."""
    return int(config["model"]["vision_tokens"] or USUAL_TOKENS)


def takes_budget(strategy: Any, name: str) -> bool:
    """Whether a field of a strategy may hold a budget, so that its value follows from one."""
    return Budget in get_args(get_type_hints(type(strategy))[name])


def _strategies(config: Mapping[str, Any]) -> tuple[Any, Any]:
    """Vision and prefill strategy; None where there is none, or it refuses its fields."""

    def built(node: Mapping[str, Any] | None) -> Any:
        if node is None or "_target_" not in node:  # TokenDropper refuses what is no strategy
            return None
        try:
            return instantiate(node)
        except InstantiationException:
            return None

    return built(config["vision"]), built(config["prefill"])
