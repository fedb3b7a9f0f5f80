"""Load a method preset of conf/ as a dropper, from Python."""

from collections.abc import Sequence

from hydra.utils import instantiate
from omegaconf import DictConfig

from mustdrop.budget import Budget, floor_text
from mustdrop.dropper import TokenDropper
from mustdrop.presets.compose import composed, resolved
from mustdrop.presets.folders import preset_names
from mustdrop.presets.from_budget import STAGES, budget_floor
from mustdrop.presets.names import require_fields, require_names
from mustdrop.presets.tuned import missing_fields, references, table_rows


def load(
    method: str,
    *,
    model: str = "pocket",
    benchmark: str = "pocket_vqa",
    budget: int | float | str | Budget | None = None,
    **fields: object,
) -> TokenDropper:
    """Dropper of a method preset, with the counts that meet a budget on a model.

    ``load("fastv", model="llava15_7b", budget=128)`` is FastV on LLaVA-1.5-7B with an executed
    average of 128 vision tokens per layer; ``budget="22.2%"`` is that share of what enters.
    ``load("mustdrop", budget=128, gamma=3e-3, alpha=1e-2)`` sets thresholds. The defaults are those
    of ``mustdrop run``.

    Args:
        method: Name of a preset in conf/method.
        model: Name of a preset in conf/model.
        benchmark: Name of a preset in conf/benchmark; thresholds were calibrated for one.
        budget: Executed average of vision tokens per layer, as a count (128, ``t128``) or a share
            of those that enter (``22.2%``, ``640/2880``); None: all counts are given in ``fields``.
        fields: Fields of the method's strategies, by their names, as in ``layer=2``.

    Raises:
        ValueError: If a name is unknown, a value is missing, or the method cannot reach the budget.
    """
    chosen = Budget.parse(budget)
    written = "none" if chosen is None else _written(chosen)
    overrides = [
        f"method={method}",
        f"model={model}",
        f"benchmark={benchmark}",
        f"budget={written}",
    ]
    require_names(overrides)
    cfg = composed(*overrides)
    if fields:
        overrides += [f"{_path(cfg, name)}={_text(value)}" for name, value in fields.items()]
        require_fields(overrides, lambda _: cfg)
        cfg = composed(*overrides)
    missing = missing_fields(cfg)
    if missing:
        at = "without a budget" if chosen is None else f"at {chosen}"
        tuned = _tuned_elsewhere(cfg, missing)
        raise ValueError(
            f"{method} needs {', '.join(missing)}: no threshold was calibrated for {model} x "
            f"{benchmark} {at}{tuned}; give the value, as in presets.load({method!r}, "
            f"{missing[0].split('.')[-1]}=...), or calibrate it (mustdrop calibrate --help)"
        )
    floor = budget_floor(resolved(cfg))
    if floor is not None:
        raise ValueError(
            f"budget: the least executed average of {method} on {model} is {floor_text(floor)}, "
            f"got {chosen}"
        )
    dropper = instantiate(cfg.dropper)
    assert isinstance(dropper, TokenDropper)
    return dropper


def names(group: str) -> list[str]:
    """Names of the presets of a group, such as ``method`` or ``model``."""
    return preset_names(group)


def _written(budget: Budget) -> str:
    """A budget as an override writes it, without loss."""
    return budget.name if budget.share is None else f"'{100 * budget.share!r}%'"


def _tuned_elsewhere(cfg: DictConfig, missing: Sequence[str]) -> str:
    """Benchmarks and budgets for which the missing values are tuned, for a message."""
    stage, _, field = missing[0].partition(".")
    strategy = next((name for other, name, _ in references(cfg, stage) if other == field), None)
    known = [
        f"{row.get('benchmark', 'any benchmark')} at {row.get('budget', 'any budget')}"
        for row in table_rows(cfg.model.name)
        if row["strategy"] == strategy and field in row.get("values", {})
    ]
    return f" (there are {', '.join(known)})" if known else ""


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
