"""What to do where a run has no thresholds of its own: the command that finds them, filled in."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from mustdrop.presets.compose import NODES, conf_dir, read_yaml
from mustdrop.runs.folder import UNKEYED

CALIBRATE = "python experiments/calibrate.py"
WITHDRAW = "python experiments/vtw_layer.py write=true"
# Entries of a command line that a calibration gets by a preset's name, or has no use for.
NAMED = ("model", "method", "benchmark", "benchmark.limit", "benchmark.metric", "batch_size")
UNUSED = ("budget", "controls", "image", "hydra", "tuned", *UNKEYED)


def remedy(
    cfg: DictConfig,
    config: Mapping[str, Any],
    places: Sequence[str],
    made: Mapping[str, Any] | None,
    overrides: Sequence[str] = (),
) -> str:
    """How a run gets thresholds of its own, as the end of a sentence: the command, or the values.

    Args:
        cfg: As composed.
        config: The same, resolved as far as model, method, benchmark and budget.
        places: Fields that lack a value of their own.
        made: What the values that are there were made for; None where there are none.
        overrides: What was typed.
    """
    given = " ".join(f"{place}=<value>" for place in places)
    if places == ["prefill.layer"]:
        model = shlex.join([f"model={config['model']['name']}", *_chosen(overrides)])
        return f"find it with {WITHDRAW} {model}, or give {given}"
    if config["budget"] is None or (made is not None and "tokens" not in made):
        return f"give {given}"
    benchmark, chosen = config["benchmark"], _chosen(overrides)
    names = {group: config[group]["name"] for group in ("model", "method", "benchmark")}
    if benchmark["calibration"] is None:
        chosen = [text for text in chosen if not text.startswith("benchmark.")]
        names["benchmark"] = _with_split(benchmark)
    words = [f"{group}={name}" for group, name in names.items()] + _budget(config) + chosen
    words += [
        word for word in _fixed(cfg, places, made) if word.partition("=")[0] not in given_by(chosen)
    ]
    command = f"{CALIBRATE} {shlex.join(words)}"
    if benchmark["calibration"] is None:
        return (
            f"{benchmark['name']} has no split to choose thresholds on, so calibrate on another "
            f"benchmark ({command}) and give its values to this run, {given}"
        )
    return f"calibrate first ({command}), or give {given}"


def given_by(overrides: Sequence[str]) -> list[str]:
    """The names that overrides give a value to."""
    return [text.partition("=")[0].lstrip("+~") for text in overrides]


def missing(cfg: DictConfig, key: str, overrides: Sequence[str] = ()) -> str:
    """What to do about a value that has to be given, as a sentence."""
    stage = key.removeprefix("dropper.").partition(".")[0]
    if stage not in NODES:
        return f"{key} has no value: give it"
    node = cfg[stage]
    places = [f"{stage}.{name}" for name in node if OmegaConf.is_missing(node, name)]
    named = OmegaConf.masked_copy(cfg, ["model", "method", "benchmark", "budget"])
    config: Any = OmegaConf.to_container(named, resolve=True)
    budget = f"at {config['budget']['name']}" if config["budget"] else "without a budget"
    where = f"{config['model']['name']} x {config['benchmark']['name']} {budget}"
    more = f" (nor has {' nor '.join(places[1:])})" if places[1:] else ""
    end = remedy(cfg, config, places, None, overrides)
    return f"{places[0]} has no value{more} for {where}: {end}"


def typed() -> list[str]:
    """What was typed, in a process that Hydra runs; empty elsewhere."""
    if not HydraConfig.initialized():
        return []
    return list(HydraConfig.get().overrides.task)


def _budget(config: Mapping[str, Any]) -> list[str]:
    budget = config["budget"]
    preset = conf_dir() / "budget" / f"{budget['name']}.yaml"
    if preset.is_file() and read_yaml(preset)["tokens"] == budget["tokens"]:
        return [f"budget={budget['name']}"]
    return [f"budget.tokens={budget['tokens']:g}", f"budget.name={budget['name']}"]


def _chosen(overrides: Sequence[str]) -> list[str]:
    """What was typed and may change a threshold."""
    kept = []
    for text in overrides:
        (name,) = given_by([text])
        first = name.replace("/", ".").replace("@", ".").partition(".")[0]
        if name not in NAMED and first not in UNUSED:
            kept.append(text)
    return kept


def _fixed(cfg: DictConfig, places: Sequence[str], made: Mapping[str, Any] | None) -> Iterator[str]:
    """The field that is searched, where it is not gamma, and what the other ones are fixed at."""
    from analysis.tables.layouts import threshold  # pandas: only where there is something to say

    known = threshold(cfg.method.name)
    order = ("prefill.gamma", "prefill.scale", "vision.tau", "prefill.alpha")
    field = known[0] if known else next((name for name in order if name in places), places[0])
    if field != "prefill.gamma":
        yield f"calibration.field={field}"
    for place in places:
        if place == field:
            continue
        name = place.partition(".")[2]
        if made is not None and name in made:
            yield f"{place}={made[name]:g}"
        elif known and known[1] and known[1].startswith(place):
            yield known[1]
        else:
            yield f"{place}={'0.0' if name == 'bias' else '1.0e-2'}"


def _with_split(benchmark: Mapping[str, Any]) -> str:
    """A benchmark of the same kind that has a split to choose thresholds on."""
    kind = "stock" in benchmark["task"]
    for path in sorted((conf_dir() / "benchmark").glob("*.yaml")):
        other = read_yaml(path)
        if other.get("calibration") and ("stock" in other.task) == kind:
            return path.stem
    return "gqa"
