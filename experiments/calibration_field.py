"""The field that a calibration searches, and the range of its values.

Everything is checked before a model is loaded.
"""

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from mustdrop.budget import Budget
from mustdrop.calibration.search import OutOfReach
from mustdrop.presets.from_budget import follows, is_floor
from mustdrop.presets.tuned import missing_fields, references


def searched_field(cfg: DictConfig) -> str:
    """Return the field to search: the given one, or the method's threshold without a value.

    Where all have a value, it is the first threshold that is read from a table for a budget.

    Raises:
        ValueError: If the method has no threshold.
    """
    if cfg.calibration.field is not None:
        return cfg.calibration.field
    missing = missing_fields(cfg)
    for stage in ("prefill", "vision", "key_tokens"):
        fields = [name for name, _, has_default in references(cfg, stage) if not has_default]
        named = [name for name in fields if f"{stage}.{name}" in missing] or fields
        if named:
            return f"{stage}.{named[0]}"
    raise ValueError(
        f"{cfg.method.name} has no threshold that follows from a budget: name the field to search, "
        "as in calibration.field=prefill.gamma"
    )


def search_range(cfg: DictConfig, field: str) -> tuple[float, float]:
    """Return the range to search; everything is checked before a model is loaded."""
    if Budget.parse(cfg.budget) is None:
        raise ValueError("there is no budget to meet: choose one, as in budget=t128")
    if cfg.benchmark.calibration is None:
        raise ValueError(
            f"benchmark {cfg.benchmark.name} has no split to choose thresholds on: calibrate on "
            "another benchmark and take its values with calibrate_with=<benchmark>, or give "
            f"{field}=<value> to the run"
        )
    stage, _, name = field.partition(".")
    node = cfg.get(stage)
    # the list also holds fields without a value
    if not isinstance(node, DictConfig) or name not in list(node):
        raise ValueError(
            f"{field} is no field of a stage in use; write stage.field, as in prefill.gamma"
        )
    if follows(node, name):
        raise ValueError(
            f"{field} follows from the budget in closed form, so no calibration is needed"
        )
    others = [other for other in missing_fields(cfg) if other != field]
    if others:
        raise ValueError(
            f"{' and '.join(others)} must have a value while {field} is searched: give "
            + " ".join(f"{other}=<value>" for other in others)
        )
    # the strategy, which knows the range of its thresholds, needs a value first
    if field in missing_fields(cfg) or is_floor(node[name]):
        OmegaConf.update(cfg, field, 0.0)
    low, high = _whole_range(cfg, field)
    low = low if cfg.calibration.low is None else cfg.calibration.low
    high = high if cfg.calibration.high is None else cfg.calibration.high
    if low is None or high is None:
        raise ValueError(f"{field} has no range: give calibration.low and calibration.high")
    return float(low), float(high)


def require_floor(cfg: DictConfig, field: str, result: OutOfReach) -> None:
    """Check that a search out of reach found the least average of the method.

    Raises:
        ValueError: If the method keeps fewer tokens than the budget at every value, or if a part of
            the threshold's range was searched.
    """
    budget, (low, high) = Budget.parse(cfg.budget), search_range(cfg, field)
    if result.nearest < result.target:
        raise ValueError(
            f"at every value of {field} the method keeps fewer than {budget}, so nothing is written"
        )
    least, most = _whole_range(cfg, field)
    if least is not None and most is not None and (low > least or high < most):
        raise ValueError(
            f"no {field} in [{low:g}, {high:g}] meets {budget}, so nothing is written: search "
            f"[{least:g}, {most:g}]"
        )


def _whole_range(cfg: DictConfig, field: str) -> tuple[float | None, float | None]:
    """Range of a threshold that its strategy states; two None if it states none."""
    stage, _, name = field.partition(".")
    return instantiate(cfg.dropper[stage]).thresholds.get(name, (None, None))


def require_points(cfg: DictConfig) -> None:
    """Check the number of values that are measured first.

    Raises:
        ValueError: If it is less than 2.
    """
    points = cfg.calibration.points
    if isinstance(points, bool) or not isinstance(points, int) or points < 2:
        raise ValueError(f"calibration.points must be a count of 2 or more, got {points!r}")
