"""Configurations: where conf/ is, what its resolvers mean, a config with every value in place."""

from collections.abc import Callable, Mapping
from functools import wraps
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf, open_dict

from mustdrop.budgets import schedules
from mustdrop.budgets.closed_form import STAGES, budget_keep, budget_share


def as_node(closed_form: Callable[..., Any]) -> Callable[..., Any]:
    """The same with lists as nodes: a plain one cannot be put into the config it resolves."""

    @wraps(closed_form)
    def resolver(*args: Any) -> Any:
        found = closed_form(*args)
        return OmegaConf.create(found) if isinstance(found, list) else found

    return resolver


CLOSED_FORMS = (
    budget_keep,
    budget_share,
    schedules.pyramid_ratios,
    schedules.sparsevlm_keep,
    schedules.tome_removed,
    schedules.vtw_layer,
)
for closed_form in CLOSED_FORMS:
    OmegaConf.register_new_resolver(closed_form.__name__, as_node(closed_form), replace=True)

CALIBRATED = "calibrated"  # beside tuned values: what they were made for
NODES = ("budget", *STAGES)  # what may have such values


def strategy(node: Any) -> Any:
    """What ``${strategy:${prefill}}`` stands for: a stage as its class is built from it."""
    if not isinstance(node, DictConfig) or CALIBRATED not in node:
        return node
    names = [name for name in node if name != CALIBRATED]
    return OmegaConf.create(
        {name: "???" if OmegaConf.is_missing(node, name) else node[name] for name in names}
    )


OmegaConf.register_new_resolver("strategy", strategy, replace=True)

RANDOM = "mustdrop.prefill.random.Random"


def conf_dir() -> Path:
    """The folder of configs: inside an installed package, beside it in a checkout."""
    spec = find_spec("mustdrop")
    assert spec is not None and spec.origin is not None
    package = Path(spec.origin).parent
    inside = package / "conf"
    return inside if inside.is_dir() else package.parent / "conf"


def read_yaml(path: Path) -> DictConfig:
    """A file of conf/ as it stands there."""
    node = OmegaConf.load(path)
    assert isinstance(node, DictConfig), path
    return node


def composed(*overrides: str, name: str = "run") -> DictConfig:
    """The config that the command line with these overrides would run."""
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = compose(name, list(overrides), return_hydra_config=True)
    adopt(cfg, cfg.hydra.runtime.choices)
    with open_dict(cfg):
        del cfg["hydra"]
    return cfg


def adopt(cfg: DictConfig, choices: Mapping[str, Any]) -> None:
    """Take the thresholds of a budget that is no preset, where a calibration has found them.

    Hydra finds tuned files by the names of presets; ``budget.tokens=100`` has none.

    Args:
        cfg: As composed; changed in place.
        choices: The options that Hydra chose.
    """
    budget = cfg.get("budget")
    if budget is None or budget.name == choices.get("budget"):
        return
    folder = conf_dir() / "tuned" / str(choices.get("model")) / str(choices.get("benchmark"))
    for stage in ("vision", "prefill", "budget"):
        option, end = choices.get(stage), ""
        if stage == "budget":
            option, end = cfg.method.name, "_floor"
        path, node = folder / f"{option}_{budget.name}{end}.yaml", cfg.get(stage)
        if node is None or not path.is_file():
            continue
        found = read_yaml(path)
        with open_dict(node):
            node[CALIBRATED] = found[CALIBRATED]
            for name in found[CALIBRATED]:
                if name in found and _untouched(node, str(name), stage, str(choices.get(stage))):
                    node[name] = f"${{.{CALIBRATED}.{name}}}"


def _untouched(node: DictConfig, name: str, stage: str, option: str) -> bool:
    """Whether a field has the value of its preset: nobody set it by hand."""
    if OmegaConf.is_missing(node, name) or OmegaConf.is_interpolation(node, name):
        return True
    preset = read_yaml(conf_dir() / stage / f"{option}.yaml")
    return node[name] == preset.get(name)


def resolved(cfg: DictConfig) -> dict[str, Any]:
    """Every value in place, as plain data: what a run is keyed by and what its record tells.

    A method that drops nothing has no budget and no control beside it, whatever was asked for:
    vanilla is one run, not one a budget. Random dropping is its own control.

    Raises:
        MissingMandatoryValue: If a value has to be given.
        InterpolationResolutionError: If one cannot be computed from the others.
    """
    ours = OmegaConf.masked_copy(cfg, [str(name) for name in cfg if name != "hydra"])
    plain = OmegaConf.to_container(ours, resolve=True, throw_on_missing=True)
    assert isinstance(plain, dict)
    config = {str(name): value for name, value in plain.items()}
    for name in NODES:
        if config[name] is not None:
            config[name].pop(CALIBRATED, None)
    if all(config[stage] is None for stage in STAGES):
        config["budget"] = config["controls"] = None
    if _random(config):
        config["controls"] = None
    return config


def _random(config: Mapping[str, Any]) -> bool:
    """Whether random tokens are all that leaves."""
    drawn = (config["prefill"] or {}).get("_target_") == RANDOM
    return drawn and config["vision"] is None and config["key_tokens"] is None
