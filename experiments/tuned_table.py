"""Tuned files: what a calibration found, as the yaml that a run picks up, with its provenance.

Knows nothing about how it was found.
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
from mustdrop.presets.compose import CALIBRATED, conf_dir, read_yaml
from mustdrop.provenance.content import content_hash
from mustdrop.provenance.fingerprint import CHECKPOINT, library_versions
from mustdrop.runs.folder import UNKEYED


@dataclass(frozen=True)
class Calibrated:
    """What a calibration found.

    Attributes:
        found: Where the search ended.
        held_out: The executed average on as many other questions; None where there is no value.
        passes: How often the model ran over as many questions, the held-out ones counted.
        seconds: All of it.
    """

    found: SearchResult | OutOfReach
    held_out: Interval | None
    passes: int
    seconds: float


def tuned_path(cfg: DictConfig, out_of_reach: bool = False) -> Path:
    """The yaml that a run picks up for this model, benchmark, strategy and budget."""
    stage = cfg.calibration.field.partition(".")[0]
    option = HydraConfig.get().runtime.choices[stage]
    names = (cfg.method.name, "_floor") if out_of_reach else (option, "")
    folder = conf_dir() / "tuned" / cfg.model.name / cfg.benchmark.name
    return folder / f"{names[0]}_{cfg.budget.name}{names[1]}.yaml"


def require_free(cfg: DictConfig, path: Path) -> None:
    """Make sure that nothing is lost by writing: a file made for something else stays.

    Raises:
        ValueError: If there is one, and ``force=true`` was not said.
    """
    made = dict(read_yaml(path).get(CALIBRATED, {})) if path.is_file() else {}
    if not made or cfg.force:
        return
    stage = cfg.calibration.field.partition(".")[0]
    was, now = plain(OmegaConf.create(made)), made_for(cfg)
    keys = [key for key in ("tokens", "model", "task", "stages") if key in was]
    lost = [
        f"{place} {old}, here {new}"
        for place, old, new in changes({k: was[k] for k in keys}, {k: now[k] for k in keys})
        if place not in [f"stages.{stage}.{name}" for name in made]  # the values themselves
    ]
    if lost:
        raise ValueError(
            f"{path} holds thresholds made for something else ({'; '.join(lost)}): "
            "calibration.write=false finds values to give by hand, a preset of your own under "
            f"conf/{'model' if 'model' in lost[0] else 'method'} keeps both, force=true replaces it"
        )


def write(cfg: DictConfig, done: Calibrated) -> Path:
    """The yaml that ``run.yaml`` picks up for this model, benchmark, strategy and budget."""
    stage, _, name = cfg.calibration.field.partition(".")
    option = HydraConfig.get().runtime.choices[stage]
    # what the strategy's own yaml leaves open belongs together; what it holds is not repeated
    bare = read_yaml(conf_dir() / stage / f"{option}.yaml")
    fixed = {
        str(key): cfg[stage][key] for key in bare if OmegaConf.is_missing(bare, key) and key != name
    }
    source = (
        f"# Fixed: {_others(cfg)}.\n# Source: {command('calibrate')}\n"
        f"# Measured with seed {cfg.seed} on {measured_on(cfg)}.\n"
    )
    found, n = done.found, cfg.calibration.n
    split = cfg.benchmark.calibration.split
    made = made_for(cfg)
    if isinstance(found, OutOfReach):
        path = tuned_path(cfg, out_of_reach=True)
        head = (
            f"# Out of reach by {cfg.calibration.field}: the least executed average of {n} "
            f"questions of {split}.\n{source}"
        )
        values = {"floor": round(found.nearest, 1)}
    else:
        assert done.held_out is not None
        path, held = tuned_path(cfg), done.held_out
        head = (
            f"# {name} for an executed average of {found.target:g}: {found.measured:.1f} on the "
            f"first {n} questions of {split},\n# {held.value:.1f} (95 % interval "
            f"{held.low:.1f} to {held.high:.1f}; {held.value / found.target - 1:+.1%} off the "
            f"budget) on the next {n}.\n{source}"
        )
        values = {name: found.value, **fixed}
        made["stages"][stage][name] = float(number(found.value))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(head + body(values, made))
    return path


def body(values: Mapping[str, float | None], made: Mapping[str, Any]) -> str:
    """Tuned values with what they were made for; fields that are set by hand refer to neither."""
    fields = "".join(f"{name}: ${{.{CALIBRATED}.{name}}}\n" for name in values)
    held = "".join(f"  {name}: {number(value)}\n" for name, value in values.items())
    rest = yaml.safe_dump(dict(made), sort_keys=False, default_flow_style=None, width=96)
    lines = "".join(f"  {line}\n" for line in rest.splitlines())
    return f"{fields}{CALIBRATED}:\n{held}{lines}"


def command(script: str) -> str:
    """What was typed; where a run goes and on what says nothing about the number."""
    given = HydraConfig.get().overrides.task
    asked = [told for told in given if told.split("=")[0] not in UNKEYED]
    return f"python experiments/{script}.py {' '.join(asked)}".rstrip()


def _others(cfg: DictConfig) -> str:
    """The thresholds that were not looked for, in words."""
    places = ("vision.tau", "key_tokens.mu", "prefill.gamma", "prefill.alpha")
    values = {place: OmegaConf.select(cfg, place) for place in places}
    if cfg.key_tokens is not None and cfg.key_tokens.get("rule") == "ratio":
        del values["key_tokens.mu"]
        values["key_tokens.ratio"] = cfg.key_tokens.ratio
    told = [
        f"{place} {value:g}"
        for place, value in values.items()
        if value is not None and place != cfg.calibration.field
    ]
    return ", ".join(told) or "nothing"


def measured_on(cfg: DictConfig) -> str:
    """The model and the code behind a number."""
    revision = cfg.model.revision
    if cfg.model.pretrained == "packaged":
        revision = f"weights {content_hash(CHECKPOINT / 'model.safetensors')}"
    found = library_versions()
    versions = ", ".join(f"{name} {found[name]}" for name in ("torch", "transformers"))
    return f"{cfg.model.pretrained} {revision or 'newest'}, {cfg.model.dtype}, {versions}"


def number(value: float | None) -> str:
    """As thresholds are written: 1.234e-03, which plain YAML reads as a number too; 66.0."""
    if value is None:
        return "null"
    if isinstance(value, int):
        return str(value)
    return f"{value:.3e}" if 0 < abs(value) < 0.1 else str(float(f"{value:.4g}"))
