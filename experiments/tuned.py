"""Tuned files: what a calibration found, as the yaml that a run picks up, with its provenance.

Knows nothing about how it was found.
"""

from dataclasses import dataclass
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from analysis.statistics.intervals import Interval
from experiments.compose import conf_dir
from mustdrop.harness.calibration.search import Found, OutOfReach
from mustdrop.harness.fingerprint import Fingerprint
from mustdrop.harness.record import UNKEYED


@dataclass(frozen=True)
class Calibrated:
    """What a calibration found.

    Attributes:
        found: Where the search ended.
        held_out: The executed average on as many other questions; None where there is no value.
        passes: How often the model ran over as many questions, the held-out ones counted.
        seconds: All of it.
    """

    found: Found | OutOfReach
    held_out: Interval | None
    passes: int
    seconds: float


def write(cfg: DictConfig, done: Calibrated) -> Path:
    """The yaml that ``run.yaml`` picks up for this model, benchmark, strategy and budget."""
    chosen = HydraConfig.get()
    stage, _, name = cfg.calibration.field.partition(".")
    option = chosen.runtime.choices[stage]
    folder = conf_dir() / "tuned" / cfg.model.name / cfg.benchmark.name
    # what the strategy's own yaml leaves open belongs together; what it holds is not repeated
    bare = OmegaConf.load(conf_dir() / stage / f"{option}.yaml")
    fixed = {
        str(key): number(cfg[stage][key])
        for key in bare
        if OmegaConf.is_missing(bare, key) and key != name
    }
    source = (
        f"# Fixed: {_others(cfg)}.\n# Source: {command('calibrate')}\n"
        f"# Measured with seed {cfg.seed} on {measured_on(cfg)}.\n"
    )
    found, n = done.found, cfg.calibration.n
    split = cfg.benchmark.calibration.split
    if isinstance(found, OutOfReach):
        path = folder / f"{cfg.method.name}_{cfg.budget.name}_floor.yaml"
        text = (
            f"# Out of reach by {cfg.calibration.field}: the least executed average of {n} "
            f"questions of {split}.\n{source}floor: {found.nearest:.1f}\n"
        )
    else:
        assert done.held_out is not None
        path = folder / f"{option}_{cfg.budget.name}.yaml"
        held = done.held_out
        text = (
            f"# {name} for an executed average of {found.target:g}: {found.measured:.1f} on the "
            f"first {n} questions of {split},\n# {held.value:.1f} (95 % interval "
            f"{held.low:.1f} to {held.high:.1f}; {held.value / found.target - 1:+.1%} off the "
            f"budget) on the next {n}.\n{source}{name}: {number(found.value)}\n"
            + "".join(f"{key}: {value}\n" for key, value in fixed.items())
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


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
    mark = Fingerprint.now()
    weights = [text for path, text in mark.files.items() if path.endswith(".safetensors")]
    revision = f"weights {weights[0]}" if cfg.model.pretrained == "packaged" else cfg.model.revision
    versions = ", ".join(f"{name} {mark.versions[name]}" for name in ("torch", "transformers"))
    return f"{cfg.model.pretrained} {revision or 'newest'}, {cfg.model.dtype}, {versions}"


def number(value: float | None) -> str:
    """As thresholds are written: 1.234e-03, which plain YAML reads as a number too; 66.0."""
    if value is None:
        return "null"
    return f"{value:.3e}" if 0 < abs(value) < 0.1 else str(float(f"{value:.4g}"))
