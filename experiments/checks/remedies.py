"""Advice for a run without thresholds: the complete command that finds them."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from mustdrop.budget import Budget
from mustdrop.presets.compose import read_yaml
from mustdrop.presets.folders import conf_dir
from mustdrop.runs.key import UNKEYED

CALIBRATE = "mustdrop calibrate"
WITHDRAW = "mustdrop vtw write=true"
# overrides that the calibration command names by preset, and overrides that it does not need
NAMED = ("model", "method", "benchmark", "benchmark.limit", "benchmark.metric", "batch_size")
UNUSED = ("budget", "controls", "image", "hydra", "tuned", *UNKEYED)


def remedy(
    cfg: DictConfig,
    config: Mapping[str, Any],
    fields: Sequence[str],
    made: Mapping[str, Any] | None,
    overrides: Sequence[str] = (),
) -> str:
    """Advise how a run gets its thresholds, as the end of a sentence: a command, or the values.

    Args:
        cfg: Composed config.
        config: Model, method, benchmark and budget of the config, resolved.
        fields: Fields that lack a value for this run.
        made: Row of the present values; None if there are none.
        overrides: Overrides as typed.
    """
    values = " ".join(f"{field}=<value>" for field in fields)
    if fields == ["prefill.layer"]:
        words = [f"model={config['model']['name']}", *_chosen(overrides), *_inputs(cfg, overrides)]
        model = shlex.join(words)
        return f"find it with {WITHDRAW} {model}, or give {values}"
    if Budget.parse(cfg.budget) is None or (made is not None and "budget" not in made):
        return f"give {values}"
    benchmark, chosen = config["benchmark"], _chosen(overrides)
    names = {group: config[group]["name"] for group in ("model", "method", "benchmark")}
    if benchmark["calibration"] is None:
        chosen = [text for text in chosen if not text.startswith("benchmark.")]
        names["benchmark"] = _with_split(benchmark)
    words = [f"{group}={name}" for group, name in names.items()] + [f"budget={cfg.budget}"] + chosen
    words += _inputs(cfg, overrides)
    words += [
        word for word in _fixed(cfg, fields, made) if word.partition("=")[0] not in given_by(chosen)
    ]
    command = f"{CALIBRATE} {shlex.join(words)}"
    if benchmark["calibration"] is None:
        return (
            f"{benchmark['name']} has no split to choose thresholds on, so calibrate on another "
            f"benchmark ({command}) and give its values to this run, {values}"
        )
    return f"calibrate first ({command}), or give {values}"


def given_by(overrides: Sequence[str]) -> list[str]:
    """List the names that overrides set."""
    return [text.partition("=")[0].lstrip("+~") for text in overrides]


def missing(cfg: DictConfig, fields: Sequence[str], overrides: Sequence[str] = ()) -> str:
    """Explain in a sentence how to give the missing values of a stage.

    Args:
        cfg: Composed config.
        fields: Fields without a value, as ``stage.field``.
        overrides: Overrides as typed.
    """
    stage = fields[0].partition(".")[0]
    fields = [field for field in fields if field.startswith(f"{stage}.")]
    named = OmegaConf.masked_copy(cfg, ["model", "method", "benchmark"])
    config: Any = OmegaConf.to_container(named, resolve=True)
    budget = Budget.parse(cfg.budget)
    at = f"at {budget.name}" if budget else "without a budget"
    run = f"{config['model']['name']} x {config['benchmark']['name']} {at}"
    lacking = " and ".join(f"{field} has no value" for field in fields)
    return f"{lacking} for {run}: {remedy(cfg, config, fields, None, overrides)}"


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


def _with_split(benchmark: Mapping[str, Any]) -> str:
    """Name a benchmark of the same kind that has a calibration split."""
    kind = "stock" in benchmark["task"]
    for path in sorted((conf_dir() / "benchmark").glob("*.yaml")):
        other = read_yaml(path)
        if other.get("calibration") and ("stock" in other.task) == kind:
            return path.stem
    return "gqa"
