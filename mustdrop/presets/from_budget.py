"""Values of a config that follow from its budget, as the resolvers of the yaml files.

A strategy's yaml writes ``keep: ${from_budget:keep}``; the strategy itself computes the count.
"""

from collections.abc import Mapping
from typing import Any

from hydra.utils import get_class, instantiate
from omegaconf import DictConfig, OmegaConf

from mustdrop.budget import Budget, Floor, floor_text
from mustdrop.presets.planned import USUAL_TOKENS

FLOOR = "floor"
FROM_BUDGET = "${from_budget:"
STAGES = ("vision", "key_tokens", "prefill", "decode")


def required_budget(value: Any) -> Budget:
    """Budget of a config.

    Raises:
        ValueError: If no budget was chosen.
    """
    budget = Budget.parse(value)
    if budget is None:
        raise ValueError(
            "there is no budget to compute it from: choose one (budget=t192), or set the value"
        )
    return budget


def from_budget(field: str, *, _parent_: DictConfig, _root_: DictConfig) -> Any:
    """Value of ``${from_budget:<field>}`` in a strategy's yaml: a count, list, layer or ratios.

    A share, and a count for a model whose prompts differ in size, stay a budget, which the strategy
    resolves for each prompt. ``floor <n>`` means that the budget is below n, the least executed
    average of the strategy: a number of tokens, or a share if the model's prompts differ in size.

    Raises:
        ValueError: If no budget was chosen, or the strategy refuses another of its fields.
    """
    # imports torch, which a config without a budget does not need
    from mustdrop.schedule import least_average
    from mustdrop.strategy import VisionStrategy

    budget, model = required_budget(_root_.budget), _root_.model
    names = [str(name) for name in _parent_ if name != "_target_"]
    given = {n: budget if follows(_parent_, n) else _plain(_parent_[n]) for n in names}
    strategy = get_class(_parent_._target_)(**given)
    entered, blocks, depth = model.vision_tokens, model.merging_blocks or 0, model.layers
    if entered is not None or budget.share is not None:
        usual = entered or USUAL_TOKENS
        least = least_average(strategy, usual, blocks, depth)
        if least is not None and budget.target(usual) < least:
            floor = least if entered is not None else f"{100 * least / usual:.4g}%"
            return f"{FLOOR} {floor_text(floor)}"
    if entered is None or budget.share is not None:  # resolved for each prompt
        measure = {"tokens": budget.tokens} if budget.share is None else {"share": budget.share}
        return OmegaConf.create({"_target_": "mustdrop.budget.Budget", **measure})
    size = blocks if isinstance(strategy, VisionStrategy) else depth
    value = getattr(strategy.plan(entered, size), field)
    return OmegaConf.create(list(value)) if isinstance(value, tuple) else value


def follows(node: DictConfig, name: str) -> bool:
    """Whether a field follows from the budget, so that no user has set it."""
    raw = node._get_node(name)
    return raw is not None and str(raw._value()).startswith(FROM_BUDGET)


def budget_share(*, _root_: DictConfig) -> float:
    """Value of ``${budget_share:}`` in an image control's yaml: T / N, at most 1.

    Raises:
        ValueError: If no budget was chosen.
    """
    budget, entered = required_budget(_root_.budget), _root_.model.vision_tokens
    if budget.share is not None:
        return budget.share
    if entered is None:
        raise ValueError(
            f"the prompts of {_root_.model.name} differ in size, so a count is no share of them: "
            "give a share (budget=22.2%), or image.ratio"
        )
    return min(1.0, budget.target(entered) / entered)


def is_floor(value: Any) -> bool:
    """Whether a resolved field names the least average of its strategy instead of a value."""
    return isinstance(value, str) and value.startswith(f"{FLOOR} ")


def budget_floor(config: Mapping[str, Any]) -> Floor | None:
    """Least executed average of a resolved config if the budget is below it, or else None."""
    for stage in STAGES:
        for value in (config[stage] or {}).values():
            if is_floor(value):
                least = value.removeprefix(f"{FLOOR} ")
                return least if least.endswith("%") else float(least)
    return None


def _plain(value: Any) -> Any:
    """A field's value as the strategy takes it; a budget may have been resolved before."""
    if isinstance(value, DictConfig):
        return instantiate(value)
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value


OmegaConf.register_new_resolver("from_budget", from_budget, replace=True)
OmegaConf.register_new_resolver("budget_share", budget_share, replace=True)
