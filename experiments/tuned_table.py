"""Tuned files: the thresholds of a calibration as the yaml that a run reads, with provenance.

Knows nothing about the search.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from analysis.statistics.intervals import Interval
from experiments.checks.thresholds import changes, made_for, plain
from mustdrop.calibration.search import OutOfReach, SearchResult
from mustdrop.presets.compose import CALIBRATED, conf_dir, preset_file, read_yaml, tuned_dir
from mustdrop.provenance.content import content_hash
from mustdrop.provenance.fingerprint import CHECKPOINT, library_versions
from mustdrop.runs.key import UNKEYED


@dataclass(frozen=True)
class Calibrated:
    """Result of a calibration.

    Attributes:
        result: Result of the search.
        held_out: Executed average on as many other questions; None without a threshold.
        passes: Number of passes of the model over ``n`` questions, the held-out pass included.
        seconds: Seconds of the whole calibration.
    """

    result: SearchResult | OutOfReach
    held_out: Interval | None
    passes: int
    seconds: float


def tuned_path(cfg: DictConfig, out_of_reach: bool = False) -> Path:
    """Return the yaml that a run of this model, benchmark, strategy and budget reads."""
    stage = cfg.calibration.field.partition(".")[0]
    option = HydraConfig.get().runtime.choices[stage]
    names = (cfg.method.name, "_floor") if out_of_reach else (option, "")
    folder = tuned_dir() / cfg.model.name / cfg.benchmark.name
    return folder / f"{names[0]}_{cfg.budget.name}{names[1]}.yaml"


def require_free(cfg: DictConfig, path: Path) -> None:
    """Make sure that no thresholds made for something else are overwritten.

    Raises:
        ValueError: If the file holds such thresholds, and ``force`` is false.
    """
    packaged = conf_dir() / "tuned" / path.relative_to(tuned_dir())
    if packaged != path and packaged.is_file():
        raise ValueError(
            f"the installed package has thresholds for this model, benchmark and budget already: "
            f"give the budget another name, as in budget.name={cfg.budget.name}b"
        )
    made = dict(read_yaml(path).get(CALIBRATED, {})) if path.is_file() else {}
    if not made or cfg.force:
        return
    stage = cfg.calibration.field.partition(".")[0]
    was, now = plain(OmegaConf.create(made)), made_for(cfg)
    keys = [key for key in ("tokens", "model", "task", "stages") if key in was]
    thresholds = [f"stages.{stage}.{name}" for name in made]
    lost = [
        f"{key} {old}, here {new}"
        for key, old, new in changes({k: was[k] for k in keys}, {k: now[k] for k in keys})
        if key not in thresholds
    ]
    if lost:
        raise ValueError(
            f"{path} holds thresholds made for something else ({'; '.join(lost)}): "
            "use calibration.write=false to get values to give by hand, a new preset under "
            f"conf/{'model' if 'model' in lost[0] else 'method'} to keep both, or force=true to "
            "replace the file"
        )


def write(cfg: DictConfig, done: Calibrated) -> Path:
    """Write the yaml that ``run.yaml`` reads for this model, benchmark, strategy and budget."""
    stage, _, name = cfg.calibration.field.partition(".")
    option = HydraConfig.get().runtime.choices[stage]
    # fields without a value in the strategy's yaml belong to the thresholds; others are not copied
    bare = read_yaml(preset_file(stage, f"{option}.yaml"))
    fixed = {
        str(key): cfg[stage][key] for key in bare if OmegaConf.is_missing(bare, key) and key != name
    }
    source = (
        f"# Fixed: {_others(cfg)}.\n# Source: {command('calibrate')}\n"
        f"# Measured with seed {cfg.seed} on {measured_on(cfg)}.\n"
    )
    result, n = done.result, cfg.calibration.n
    split = cfg.benchmark.calibration.split
    made = made_for(cfg)
    if isinstance(result, OutOfReach):
        path = tuned_path(cfg, out_of_reach=True)
        head = (
            f"# Out of reach by {cfg.calibration.field}: the least executed average of {n} "
            f"questions of {split}.\n{source}"
        )
        values = {"floor": round(result.nearest, 1)}
    else:
        assert done.held_out is not None
        path, held = tuned_path(cfg), done.held_out
        head = (
            f"# {name} for an executed average of {result.target:g}: {result.measured:.1f} on the "
            f"first {n} questions of {split},\n# {held.value:.1f} (95 % interval "
            f"{held.low:.1f} to {held.high:.1f}; {held.value / result.target - 1:+.1%} off the "
            f"budget) on the next {n}.\n{source}"
        )
        values = {name: result.value, **fixed}
        made["stages"][stage][name] = float(number(result.value))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(head + body(values, made))
    return path


def body(values: Mapping[str, float | None], made: Mapping[str, Any]) -> str:
    """Format tuned values and their provenance as yaml; the fields refer to the values.

    A field that is set by hand replaces that reference, so it does not count as tuned.
    """
    fields = "".join(f"{name}: ${{.{CALIBRATED}.{name}}}\n" for name in values)
    held = "".join(f"  {name}: {number(value)}\n" for name, value in values.items())
    rest = yaml.safe_dump(dict(made), sort_keys=False, default_flow_style=None, width=96)
    lines = "".join(f"  {line}\n" for line in rest.splitlines())
    return f"{fields}{CALIBRATED}:\n{held}{lines}"


def command(script: str) -> str:
    """Return the command as it was typed, without overrides that do not affect the result."""
    overrides = HydraConfig.get().overrides.task
    kept = [override for override in overrides if override.split("=")[0] not in UNKEYED]
    return f"mustdrop {script} {' '.join(kept)}".rstrip()


def _others(cfg: DictConfig) -> str:
    """Name the thresholds that were not searched, with their values."""
    fields = ("vision.tau", "key_tokens.mu", "prefill.gamma", "prefill.alpha")
    values = {field: OmegaConf.select(cfg, field) for field in fields}
    if cfg.key_tokens is not None and cfg.key_tokens.get("rule") == "ratio":
        del values["key_tokens.mu"]
        values["key_tokens.ratio"] = cfg.key_tokens.ratio
    others = [
        f"{field} {value:g}"
        for field, value in values.items()
        if value is not None and field != cfg.calibration.field
    ]
    return ", ".join(others) or "nothing"


def measured_on(cfg: DictConfig) -> str:
    """Name the model and the library versions that a number was measured with."""
    revision = cfg.model.revision
    if cfg.model.pretrained == "packaged":
        revision = f"weights {content_hash(CHECKPOINT / 'model.safetensors')}"
    installed = library_versions()
    versions = ", ".join(f"{name} {installed[name]}" for name in ("torch", "transformers"))
    return f"{cfg.model.pretrained} {revision or 'newest'}, {cfg.model.dtype}, {versions}"


def number(value: float | None) -> str:
    """Format a threshold so that plain YAML reads a number: 1.234e-03, 66.0."""
    if value is None:
        return "null"
    if isinstance(value, int):
        return str(value)
    return f"{value:.3e}" if 0 < abs(value) < 0.1 else str(float(f"{value:.4g}"))
