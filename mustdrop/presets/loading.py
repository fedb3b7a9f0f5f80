"""Load a method preset of conf/ as a dropper, from Python."""

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from mustdrop.dropper import TokenDropper
from mustdrop.presets.compose import composed, preset_names, resolved
from mustdrop.presets.from_budget import STAGES, budget_floor
from mustdrop.presets.names import require_fields, require_names


def load(
    method: str,
    *,
    model: str = "llava15_7b",
    benchmark: str = "pocket_vqa",
    budget: int | None = None,
    **fields: object,
) -> TokenDropper:
    """Dropper of a method preset, with the counts that meet a budget on a model.

    ``load("fastv", budget=128)`` is FastV on LLaVA-1.5-7B with an executed average of 128 vision
    tokens per layer. ``load("mustdrop", budget=128, gamma=3e-3, alpha=1e-2)`` sets thresholds.

    Args:
        method: Name of a preset in conf/method.
        model: Name of a preset in conf/model.
        benchmark: Name of a preset in conf/benchmark; thresholds were calibrated for one.
        budget: Executed average of vision tokens per layer; None: all counts are given in
            ``fields``.
        fields: Fields of the method's strategies, by their names, as in ``layer=2``.

    Raises:
        ValueError: If a name is unknown, a value is missing, or the method cannot reach the budget.
    """
    overrides = [f"method={method}", f"model={model}", f"benchmark={benchmark}", *_budget(budget)]
    require_names(overrides)
    cfg = composed(*overrides)
    overrides += [f"{_path(cfg, name)}={_text(value)}" for name, value in fields.items()]
    require_fields(overrides)
    cfg = composed(*overrides)
    missing = sorted(str(name) for name in OmegaConf.missing_keys(cfg) if "dropper." not in name)
    if missing:
        raise ValueError(
            f"{method} on {model} needs {', '.join(missing)}: no threshold was calibrated for "
            f"budget={budget}; give the value, as in presets.load({method!r}, "
            f"{missing[0].split('.')[-1]}=...), or calibrate it (mustdrop calibrate --help)"
        )
    floor = budget_floor(resolved(cfg))
    if floor is not None:
        raise ValueError(
            f"budget: {method} on {model} cannot keep fewer than {floor:g} tokens per layer on "
            f"average, got {budget}"
        )
    dropper = instantiate(cfg.dropper)
    assert isinstance(dropper, TokenDropper)
    return dropper


def names(group: str) -> list[str]:
    """Names of the presets of a group, such as ``method`` or ``model``."""
    return preset_names(group)


def _budget(tokens: int | None) -> list[str]:
    """Overrides that choose a budget."""
    if tokens is None:
        return ["budget=none"]
    if isinstance(tokens, bool) or not isinstance(tokens, int) or tokens < 0:
        raise ValueError(f"budget must be a count of tokens or None, got {tokens!r}")
    if f"t{tokens}" in names("budget"):
        return [f"budget=t{tokens}"]
    return ["budget=t192", f"budget.tokens={tokens}", f"budget.name=t{tokens}"]


def _path(cfg: DictConfig, name: str) -> str:
    """Config path of a strategy's field.

    Raises:
        ValueError: If no stage of the method has the field, or several have it.
    """
    if "." in name:
        return name
    stages = [stage for stage in STAGES if cfg[stage] is not None]
    holders = [stage for stage in stages if name in list(cfg[stage])]
    if len(holders) == 1:
        return f"{holders[0]}.{name}"
    if holders:
        paths = ", ".join(f"{stage}.{name}" for stage in holders)
        raise ValueError(f"field {name!r} is ambiguous; give one of {paths} by **{{path: value}}")
    known = sorted({str(key) for stage in stages for key in cfg[stage]} - {"_target_"})
    raise ValueError(f"{cfg.method.name} has no field {name!r}; its fields are {', '.join(known)}")


def _text(value: object) -> str:
    """A value as an override writes it."""
    if value is None:
        return "null"
    if isinstance(value, str):
        return f"'{value}'"
    if isinstance(value, bool):
        return str(value).lower()
    return str(list(value)) if isinstance(value, tuple) else str(value)
