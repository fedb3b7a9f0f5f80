"""Tuned values: one table per model, ``conf/tuned/<model>.yaml``.

A row holds the values that were found for a strategy, a benchmark and a budget, and what they were
found on. A strategy's yaml refers to it by ``gamma: ${tuned:dual_attention,gamma}``. A value that
is set by hand replaces that reference, so it does not count as tuned. A value of another budget is
never used, and that of another benchmark only where ``calibrate_with`` names it and the run's
benchmark has no calibration split. A row for another checkpoint or for other inputs is read only if
there is none for those of the run, so that a run can be refused with the values that it lacks.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf

from mustdrop.budget import Budget, floor_text
from mustdrop.presets.folders import conf_dir, user_dir
from mustdrop.presets.from_budget import FLOOR, STAGES
from mustdrop.runs.key import LATER_MODEL_FIELDS

TUNED = "${tuned:"
ANY = "any"  # entry ``inputs`` of values that were published without inputs
Row = Mapping[str, Any]


class NotTuned(ValueError):
    """A value that no row of the model's table holds for the run's benchmark and budget."""


def table_paths(model: str) -> list[Path]:
    """Existing tables of a model: the packaged one, and the user's own in the working folder."""
    folders = [folder for folder in (conf_dir(), user_dir()) if folder is not None]
    paths = [folder / "tuned" / f"{model}.yaml" for folder in folders]
    return [path for path in paths if path.is_file()]


def table_rows(model: str) -> list[Row]:
    """Rows of a model's tables; later rows replace earlier ones.

    Raises:
        ValueError: If a table is no list of rows.
    """
    return [row for path in table_paths(model) for row in _read(path, path.stat().st_mtime_ns)]


@lru_cache(maxsize=32)
def _read(path: Path, changed: int) -> Sequence[Row]:
    rows = yaml.safe_load(path.read_text(encoding="utf-8")) or []
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError(f"{path} must be a list of rows, one per strategy, benchmark and budget")
    return rows


def same_budget(written: Any, budget: Budget | None) -> bool:
    """Whether a budget, as a row states it, is that of a run."""
    stated = Budget.parse(written)
    if stated is None or budget is None:
        return stated is budget
    if stated.share is None or budget.share is None:
        return stated.tokens == budget.tokens and stated.share == budget.share
    return abs(stated.share - budget.share) <= 1e-6


def inputs_of(model: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a model that decide what it gets of images and conversations."""
    return {name: model.get(name, usual) for name, usual in LATER_MODEL_FIELDS.items()}


def made_inputs(row: Row) -> dict[str, Any] | None:
    """Inputs that a row's values were made with, those of the hub if it states none; None: any."""
    stated = row.get("inputs", {})
    return None if stated == ANY else {**LATER_MODEL_FIELDS, **stated}


def same_inputs(row: Row, model: Mapping[str, Any]) -> bool:
    """Whether a row's values were made with the inputs of a run's model, or hold for any."""
    return made_inputs(row) in (None, inputs_of(model))


def same_checkpoint(row: Row, model: Mapping[str, Any]) -> bool:
    """Whether a row's values were made with the checkpoint of a run's model, or name none."""
    return "model" not in row or row["model"]["pretrained"] == model["pretrained"]


def fitting_rows(
    rows: Sequence[Row],
    strategy: str,
    benchmark: str,
    budget: Budget | None,
    model: Mapping[str, Any],
) -> list[Row]:
    """Rows of a strategy for a benchmark and a budget.

    Those for the model's checkpoint are first, then those for its inputs, then the most specific
    and newest.
    """
    fits = [
        row
        for row in rows
        if row["strategy"] == strategy
        and row.get("benchmark", benchmark) == benchmark
        and ("budget" not in row or same_budget(row["budget"], budget))
    ]
    return sorted(
        fits,
        key=lambda row: (
            same_checkpoint(row, model),
            same_inputs(row, model),
            ("benchmark" in row) + ("budget" in row),
        ),
    )[::-1]


def tuned_row(cfg: DictConfig, strategy: str, field: str) -> Row | None:
    """Row that holds a field's value for the model, benchmark and budget of a config, or None.

    The row of a budget that the strategy cannot reach holds a ``floor``, the least executed average
    that calibration found, in place of values. It is read for its own checkpoint and inputs only.
    """
    budget = Budget.parse(cfg.budget)
    names = [cfg.benchmark.name]
    if (other := calibrated_with(cfg)) is not None:
        names.append(other)
    rows = [
        row
        for name in names
        for row in fitting_rows(table_rows(cfg.model.name), strategy, name, budget, cfg.model)
    ]
    return next(
        (
            row
            for row in rows
            if field in row.get("values", {})
            or ("floor" in row and same_checkpoint(row, cfg.model) and same_inputs(row, cfg.model))
        ),
        None,
    )


def calibrated_with(cfg: DictConfig) -> str | None:
    """Name of the benchmark on whose prompts a run's thresholds are chosen, if it is another one.

    None without ``calibrate_with``, and for a benchmark that has a calibration split.
    """
    if cfg.get("calibrate_with") is None or cfg.benchmark.get("calibration") is not None:
        return None
    return str(cfg.calibrate_with)


def of_other_benchmark(row: Row, benchmark: str) -> bool:
    """Whether the values of a row were chosen on the prompts of another benchmark."""
    return row.get("benchmark", benchmark) != benchmark


def tuned(strategy: str, field: str, default: Any = None, *, _root_: DictConfig) -> Any:
    """Value of ``${tuned:<strategy>,<field>[,<default>]}`` in a strategy's yaml.

    ``floor <n>`` means that the budget is below n, the least executed average of the strategy: a
    number of tokens, or a share such as ``9.1%`` for a model whose prompts differ in size.

    Args:
        strategy: Name of the strategy's yaml file.
        field: Name of the field.
        default: Value without a row; None: there must be a row.

    Raises:
        NotTuned: If there is neither a row nor a default.
    """
    row = tuned_row(_root_, strategy, field)
    if row is not None and "floor" in row:
        least, entered = Budget.parse(row["floor"]), _root_.model.vision_tokens
        assert least is not None
        # without a number of tokens that enter, a share stays a share
        floor = row["floor"] if entered is None else least.target(entered)
        return f"{FLOOR} {floor_text(floor)}"
    if row is not None:
        return row["values"][field]
    if default is None:
        raise NotTuned(f"{field} of {strategy} is not tuned for this model, benchmark and budget")
    return default


def references(cfg: DictConfig, stage: str) -> Iterator[tuple[str, str, bool]]:
    """Fields of a stage that refer to tuned values: (field, strategy, whether it has a default)."""
    node = cfg.get(stage)
    for name in node if isinstance(node, DictConfig) else ():
        raw = node._get_node(name)
        text = "" if raw is None else str(raw._value())
        if text.startswith(TUNED):
            strategy, field, *default = text[len(TUNED) : -1].split(",")
            assert field.strip() == name, f"{stage}.{name} refers to {field}"
            yield str(name), strategy.strip(), bool(default)


def tuned_fields(cfg: DictConfig, stage: str) -> dict[str, Row]:
    """Fields of a stage whose values come from a table, with their rows."""
    rows = {name: tuned_row(cfg, strategy, name) for name, strategy, _ in references(cfg, stage)}
    return {name: row for name, row in rows.items() if row is not None and "values" in row}


def missing_fields(cfg: DictConfig) -> list[str]:
    """Fields of the stages without a value, as ``stage.field``."""
    missing = []
    for stage in STAGES:
        node = cfg.get(stage)
        if isinstance(node, DictConfig):
            missing += [f"{stage}.{name}" for name in node if OmegaConf.is_missing(node, name)]
        for name, strategy, has_default in references(cfg, stage):
            if not has_default and tuned_row(cfg, strategy, name) is None:
                missing.append(f"{stage}.{name}")
    return missing


OmegaConf.register_new_resolver("tuned", tuned, replace=True)
