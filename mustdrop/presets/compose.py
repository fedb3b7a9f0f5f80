"""Configs: the folder conf/, its resolvers, and composing and resolving a config."""

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf, open_dict

from mustdrop.presets.from_budget import STAGES

CALIBRATED = "calibrated"  # key next to tuned values that states what they were calibrated for
NODES = ("budget", *STAGES)  # config keys that may have tuned values


def strategy(node: Any) -> Any:
    """Value of ``${strategy:${prefill}}``: the config of a stage without ``calibrated``."""
    if not isinstance(node, DictConfig) or CALIBRATED not in node:
        return node
    names = [name for name in node if name != CALIBRATED]
    return OmegaConf.create(
        {name: "???" if OmegaConf.is_missing(node, name) else node[name] for name in names}
    )


OmegaConf.register_new_resolver("strategy", strategy, replace=True)

RANDOM = "mustdrop.prefill.random.Random"


def conf_dir() -> Path:
    """Folder of the configs: inside an installed package, or next to it in a checkout."""
    spec = find_spec("mustdrop")
    assert spec is not None and spec.origin is not None
    package = Path(spec.origin).parent
    inside = package / "conf"
    return inside if inside.is_dir() else package.parent / "conf"


def user_dir() -> Path | None:
    """The user's own configs: ``conf`` in the working folder; None if that is missing or packaged.

    Hydra looks there for names that the packaged configs do not have.
    """
    folder = Path.cwd() / "conf"
    return folder if folder.is_dir() and folder.resolve() != conf_dir().resolve() else None


def user_configs() -> list[str]:
    """Overrides that add the user's own configs to Hydra's search path."""
    folder = user_dir()
    if folder is None:
        return []
    quoted = str(folder).replace("\\", "\\\\").replace("'", "\\'")
    return [f"hydra.searchpath=['file://{quoted}']"]


def preset_file(*parts: str) -> Path:
    """Path of a config file: the packaged one, else the user's own, whether it exists or not."""
    packaged, folder = conf_dir().joinpath(*parts), user_dir()
    if packaged.is_file() or folder is None:
        return packaged
    return folder.joinpath(*parts)


def preset_names(group: str) -> list[str]:
    """Names of the presets of a group, those of the user's own configs included."""
    folders = [folder for folder in (conf_dir(), user_dir()) if folder is not None]
    return sorted({path.stem for folder in folders for path in (folder / group).glob("*.yaml")})


def tuned_dir() -> Path:
    """Folder for new thresholds: conf/tuned of a checkout, or of the working folder."""
    packaged = conf_dir()
    in_checkout = (packaged.parent / "pyproject.toml").is_file()
    return (packaged if in_checkout else Path.cwd() / "conf") / "tuned"


def read_yaml(path: Path) -> DictConfig:
    """Content of a yaml file of conf/, not composed."""
    node = OmegaConf.load(path)
    assert isinstance(node, DictConfig), path
    return node


def composed(*overrides: str, name: str = "run") -> DictConfig:
    """Config of a command line with these overrides."""
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = compose(name, [*overrides, *user_configs()], return_hydra_config=True)
    adopt(cfg, cfg.hydra.runtime.choices)
    with open_dict(cfg):
        del cfg["hydra"]
    return cfg


def adopt(cfg: DictConfig, choices: Mapping[str, Any]) -> None:
    """Load the calibrated thresholds, if there are any, of a budget that is not a preset.

    Hydra finds tuned files by the names of presets, and ``budget.tokens=100`` has no name.

    Args:
        cfg: Composed config, changed in place.
        choices: Option that Hydra chose for each group.
    """
    budget = cfg.get("budget")
    if budget is None or budget.name == choices.get("budget"):
        return
    folder = ("tuned", str(choices.get("model")), str(choices.get("benchmark")))
    for stage in ("vision", "prefill", "budget"):
        option, suffix = choices.get(stage), ""
        if stage == "budget":
            option, suffix = cfg.method.name, "_floor"
        path = preset_file(*folder, f"{option}_{budget.name}{suffix}.yaml")
        node = cfg.get(stage)
        if node is None or not path.is_file():
            continue
        tuned = read_yaml(path)
        with open_dict(node):
            node[CALIBRATED] = tuned[CALIBRATED]
            for name in tuned[CALIBRATED]:
                if name in tuned and _untouched(node, str(name), stage, str(choices.get(stage))):
                    node[name] = f"${{.{CALIBRATED}.{name}}}"


def _untouched(node: DictConfig, name: str, stage: str, option: str) -> bool:
    """Whether a field has the value of its preset, so that no user changed it."""
    if OmegaConf.is_missing(node, name) or OmegaConf.is_interpolation(node, name):
        return True
    preset = read_yaml(preset_file(stage, f"{option}.yaml"))
    return node[name] == preset.get(name)


def resolved(cfg: DictConfig) -> dict[str, Any]:
    """Resolved config as plain data, which determines the run key and is part of the record.

    Budget and controls are removed for a method that drops nothing, so that vanilla is one run and
    not one per budget. Controls are removed for random dropping, which is itself the control.

    Raises:
        MissingMandatoryValue: If a mandatory value is missing.
        InterpolationResolutionError: If a value cannot be computed from the others.
    """
    keys = [str(name) for name in cfg if name != "hydra"]
    plain = OmegaConf.to_container(
        OmegaConf.masked_copy(cfg, keys), resolve=True, throw_on_missing=True
    )
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
    """Whether random dropping is the only dropping."""
    random = (config["prefill"] or {}).get("_target_") == RANDOM
    return random and config["vision"] is None and config["key_tokens"] is None
