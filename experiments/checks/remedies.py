"""Advice for a run without thresholds: the complete command that finds them."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from mustdrop.budget import Budget
from mustdrop.presets.compose import read_yaml
from mustdrop.presets.folders import conf_dir, preset_file, preset_names
from mustdrop.presets.tuned import calibrated_with
from mustdrop.runs.key import UNKEYED

CALIBRATE = ("calibrate",)
WITHDRAW = ("vtw", "write=true")
# overrides that the calibration command names by preset, and overrides that it does not need
NAMED = ("model", "method", "benchmark", "benchmark.limit", "benchmark.metric", "batch_size")
UNUSED = ("budget", "controls", "image", "hydra", "tuned", *UNKEYED)


class NeedsCalibration(ValueError):
    """A run that lacks thresholds.

    Attributes:
        command: Words of the command that finds them, after ``mustdrop``; empty if no command can,
            because the benchmark has no split for it or the run has no budget.
    """

    def __init__(self, text: str, command: Sequence[str]) -> None:
        super().__init__(text)
        self.command = tuple(command)


def needs_calibration(
    lacking: str,
    cfg: DictConfig,
    config: Mapping[str, Any],
    fields: Sequence[str],
    made: Mapping[str, Any] | None,
    overrides: Sequence[str] = (),
) -> NeedsCalibration:
    """Error about missing thresholds, with advice: a command that finds them, or the values.

    Args:
        lacking: What is missing, as the start of the sentence.
        cfg: Composed config.
        config: Model, method, benchmark and budget of the config, resolved.
        fields: Fields that lack a value for this run.
        made: Row of the present values; None if there are none.
        overrides: Overrides as typed.
    """
    values = " ".join(f"{field}=<value>" for field in fields)
    if fields == ["prefill.layer"]:
        chosen = [*_chosen(overrides), *_inputs(cfg, overrides)]
        words = [*WITHDRAW, f"model={config['model']['name']}", *chosen]
        return NeedsCalibration(f"{lacking}: find it with {_line(words)}, or give {values}", words)
    if Budget.parse(cfg.budget) is None or (made is not None and "budget" not in made):
        return NeedsCalibration(f"{lacking}: give {values}", ())
    benchmark, chosen = config["benchmark"], _chosen(overrides)
    names = {group: config[group]["name"] for group in ("model", "method", "benchmark")}
    other = calibrated_with(cfg)
    if benchmark["calibration"] is None:
        chosen = [text for text in chosen if _for_any_benchmark(text)]
        names["benchmark"] = other or _with_split(benchmark)
    words = [*CALIBRATE, *(f"{group}={name}" for group, name in names.items())]
    words += [f"budget={cfg.budget}", *chosen, *_inputs(cfg, overrides)]
    words += [
        word for word in _fixed(cfg, fields, made) if word.partition("=")[0] not in given_by(chosen)
    ]
    if benchmark["calibration"] is None and other is None:
        text = (
            f"{lacking}: {benchmark['name']} has no split to choose thresholds on, so calibrate on "
            f"another benchmark ({_line(words)}) and take its values with "
            f"calibrate_with={names['benchmark']}, or give {values}"
        )
        return NeedsCalibration(text, ())
    return NeedsCalibration(f"{lacking}: calibrate first ({_line(words)}), or give {values}", words)


def _line(words: Sequence[str]) -> str:
    return f"mustdrop {shlex.join(words)}"


def given_by(overrides: Sequence[str]) -> list[str]:
    """List the names that overrides set."""
    return [text.partition("=")[0].lstrip("+~") for text in overrides]


def missing(
    cfg: DictConfig, fields: Sequence[str], overrides: Sequence[str] = ()
) -> NeedsCalibration:
    """Error about the missing values of a stage.

    Args:
        cfg: Composed config.
        fields: Fields without a value, as ``stage.field``.
        overrides: Overrides as typed.
    """
    stage = fields[0].partition(".")[0]
    fields = [field for field in fields if field.startswith(f"{stage}.")]
    named = OmegaConf.masked_copy(cfg, ["model", "method", "benchmark", "inputs"])
    config: Any = OmegaConf.to_container(named, resolve=True)
    budget = Budget.parse(cfg.budget)
    at = f"at {budget.name}" if budget else "without a budget"
    run = f"{config['model']['name']} x {config['benchmark']['name']} {at}"
    lacking = " and ".join(f"{field} has no value" for field in fields)
    return needs_calibration(f"{lacking} for {run}", cfg, config, fields, None, overrides)


def typed() -> list[str]:
    """Return the overrides as typed, in a process that Hydra runs; empty elsewhere."""
    if not HydraConfig.initialized():
        return []
    return list(HydraConfig.get().overrides.task)


def _chosen(overrides: Sequence[str]) -> list[str]:
    """Keep the overrides that may change a threshold."""
    kept = []
    for text in overrides:
        (name,) = given_by([text])
        first = name.replace("/", ".").replace("@", ".").partition(".")[0]
        if name not in NAMED and first not in UNUSED:
            kept.append(text)
    return kept


def _inputs(cfg: DictConfig, overrides: Sequence[str]) -> list[str]:
    """Override for inputs that an experiment chose; an override as typed is kept anyway."""
    named = "inputs" in given_by(overrides) or cfg.inputs == "hub"
    return [] if named else [f"inputs={cfg.inputs}"]


def _fixed(cfg: DictConfig, fields: Sequence[str], made: Mapping[str, Any] | None) -> Iterator[str]:
    """Yield overrides that fix the fields that are not searched: all but the first."""
    from analysis.tables.layouts import threshold  # imports pandas, which other runs do not need

    known = threshold(cfg.method.name)
    for field in fields[1:]:
        name = field.partition(".")[2]
        if made is not None and name in made["values"]:
            yield f"{field}={made['values'][name]:g}"
        elif known and known[1] and known[1].startswith(field):
            yield known[1]
        else:
            yield f"{field}={'0.0' if name == 'bias' else '1.0e-2'}"


def _for_any_benchmark(override: str) -> bool:
    """Whether an override of a benchmark holds for others, too, as ``/data/${benchmark.name}``."""
    return not override.startswith("benchmark.") or "${benchmark.name}" in override


def require_split(cfg: DictConfig) -> None:
    """Check that ``calibrate_with`` names a benchmark with a calibration split.

    Raises:
        ValueError: If there is no such benchmark, or it has no such split.
    """
    other = cfg.get("calibrate_with")
    if other is None:
        return
    path = preset_file("benchmark", f"{other}.yaml")
    if not path.is_file() or read_yaml(path).get("calibration") is None:
        names = [
            name
            for name in preset_names("benchmark")
            if read_yaml(preset_file("benchmark", f"{name}.yaml")).get("calibration") is not None
        ]
        raise ValueError(
            f"calibrate_with must be a benchmark with a calibration split ({', '.join(names)}), "
            f"got {other!r}"
        )


def _with_split(benchmark: Mapping[str, Any]) -> str:
    """Name a benchmark of the same kind that has a calibration split."""
    if "stock" in benchmark["task"]:
        return "gqa"
    for path in sorted((conf_dir() / "benchmark").glob("*.yaml")):
        other = read_yaml(path)
        if other.get("calibration") and "stock" not in other.task:
            return path.stem
    return "gqa"
