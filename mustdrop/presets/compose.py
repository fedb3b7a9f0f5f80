"""Configs: composing them from conf/ and resolving them to plain data."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from mustdrop.budget import Budget
from mustdrop.presets import tuned  # noqa: F401  # registers the resolver of tuned values
from mustdrop.presets.depths import layer_at_depth
from mustdrop.presets.folders import conf_dir, user_configs
from mustdrop.presets.from_budget import STAGES

RANDOM = "mustdrop.prefill.random.Random"


def at_depth(layers: Any, depth: int, *, _root_: DictConfig) -> Any:
    """Value of ``${at_depth:<layers>,<depth>}``, by :func:`layer_at_depth`.

    Args:
        layers: Layer, or list of layers, of a decoder with ``depth`` layers.
        depth: Number of layers that the layers were chosen for.
    """
    here = int(_root_.model.layers)
    if OmegaConf.is_list(layers) or isinstance(layers, list):
        return OmegaConf.create([layer_at_depth(int(layer), depth, here) for layer in layers])
    return layer_at_depth(int(layers), depth, here)


OmegaConf.register_new_resolver("at_depth", at_depth, replace=True)


def read_yaml(path: Path) -> DictConfig:
    """Content of a yaml file of conf/, not composed."""
    node = OmegaConf.load(path)
    assert isinstance(node, DictConfig), path
    return node


def composed(*overrides: str, name: str = "run") -> DictConfig:
    """Config of a command line with these overrides."""
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose(name, [*overrides, *user_configs()])


def resolved(cfg: DictConfig) -> dict[str, Any]:
    """Resolved config as plain data, which determines the run key and is part of the record.

    Budget and controls are removed for a method that drops nothing, so that vanilla is one run and
    not one per budget. Controls are removed for random dropping, which is itself the control.

    Raises:
        MissingMandatoryValue: If a mandatory value is missing.
        InterpolationResolutionError: If a value cannot be computed from the others.
        ValueError: If the budget is none.
    """
    budget = Budget.parse(cfg.budget)
    keys = [str(name) for name in cfg if name != "hydra"]
    plain = OmegaConf.to_container(
        OmegaConf.masked_copy(cfg, keys), resolve=True, throw_on_missing=True
    )
    assert isinstance(plain, dict)
    config = {str(name): value for name, value in plain.items()}
    config["budget"] = None if budget is None else _entry(budget)
    if all(config[stage] is None for stage in STAGES):
        config["budget"] = config["controls"] = None
    if _random(config):
        config["controls"] = None
    return config


def _entry(budget: Budget) -> dict[str, Any]:
    """Entry of a budget in a resolved config: its name, and its tokens or its share."""
    if budget.share is None:
        # ``floor`` is always null; run keys of earlier records contain it
        return {"name": budget.name, "tokens": budget.tokens, "floor": None}
    return {"name": budget.name, "share": budget.share}


def _random(config: Mapping[str, Any]) -> bool:
    """Whether random dropping is the only dropping."""
    random = (config["prefill"] or {}).get("_target_") == RANDOM
    return random and config["vision"] is None and config["key_tokens"] is None
