"""Provenance of tuned thresholds, and checks that only the runs they were made for use them.

A file under conf/tuned/ states under ``calibrated`` what its values were made for, and its fields
refer to that entry. So a field that is set by hand does not count as tuned.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf

from experiments.checks.remedies import remedy
from mustdrop.presets.compose import CALIBRATED, NODES
from mustdrop.provenance.weights_mark import same_weights, weights_mark
from mustdrop.runs.key import LATER_FIELDS, without_later_fields

# fields of a benchmark's task that do not change how many tokens are kept
ASIDE = ("_target_", "name", "data", "max_new_tokens")
SPLIT = ("split", "subset")
# rule of a dropper that is left out at its default
ABSENT = {"cls_attention": LATER_FIELDS["cls_attention"]}


def made_for(cfg: DictConfig) -> dict[str, Any]:
    """Describe what a calibration with this config is made for, as its file states it."""
    return {
        "tokens": float(cfg.budget.tokens),
        "model": weights(cfg),
        "task": _task(plain(cfg.benchmark.task)),
        "split": _split(plain(cfg.benchmark.calibration)),
        "stages": stages(cfg),
    }


def weights(cfg: DictConfig) -> dict[str, Any]:
    """Identify the model of a config by its name and the mark of its weights."""
    name = cfg.model.pretrained
    return {"pretrained": name, "weights": weights_mark(name, cfg.model.revision)}


def stages(cfg: DictConfig | Mapping[str, Any]) -> dict[str, Any]:
    """Collect the fields that decide how many tokens are kept; the cache stage does not."""
    kept: dict[str, Any] = {}
    for stage in ("vision", "key_tokens", "prefill"):
        node = plain(cfg[stage])
        left_out = ("_target_", CALIBRATED)
        kept[stage] = node and {name: node[name] for name in node if name not in left_out}
    rules = ("positions", "vision_positions", "cls_attention")
    kept |= {name: cfg["dropper"][name] for name in rules if name in cfg["dropper"]}
    return without_later_fields(kept)  # as thresholds from before these fields have them


def tuned_fields(node: Any) -> list[str]:
    """List the fields of a stage, or of the budget, whose values come from a tuned file."""
    if not isinstance(node, DictConfig) or CALIBRATED not in node:
        return []
    made = node[CALIBRATED]
    return [str(name) for name in made if name in node and OmegaConf.is_interpolation(node, name)]


def require_matching_thresholds(
    cfg: DictConfig, config: Mapping[str, Any], overrides: Sequence[str] = ()
) -> None:
    """Make sure that tuned thresholds were made for the tokens, model and benchmark of the run.

    Args:
        cfg: Composed config.
        config: Resolved config.
        overrides: Overrides as typed, for the command in the message.

    Raises:
        ValueError: If a threshold was made for something else.
    """
    for name in NODES:
        fields = tuned_fields(cfg.get(name))
        made = plain(cfg[name][CALIBRATED]) if fields else {}
        wrong = list(_others(made, config)) if fields else []
        if wrong:
            values = " and ".join(f"{name}.{field} {made[field]:g}" for field in fields)
            lacking = [f"{name}.{field}" for field in fields]
            raise ValueError(
                f"{values} of conf/tuned {'were' if fields[1:] else 'was'} made for "
                f"{' and for '.join(wrong)}: " + remedy(cfg, config, lacking, made, overrides)
            )


def require_matching_model(cfg: DictConfig) -> None:
    """Make sure that a calibration uses no threshold of another model.

    Raises:
        ValueError: If a threshold that is not searched was made for other weights.
    """
    for name in NODES:
        for field in tuned_fields(cfg.get(name)):
            model = plain(cfg[name][CALIBRATED].model)
            if not same_weights(model, plain(cfg.model)):
                path = f"{name}.{field}"
                raise ValueError(
                    f"{path} {cfg[name][field]:g} of conf/tuned was made for "
                    f"{_weights(model)}, not for {cfg.model.pretrained}: give {path}=<value>"
                )


def differing(cfg: DictConfig, config: Mapping[str, Any]) -> list[str]:
    """List how a run's method differs from that of its tuned thresholds, in one sentence each."""
    sentences: dict[str, None] = {}
    for name in NODES:
        fields = [f"{name}.{field}" for field in tuned_fields(cfg.get(name))]
        made = plain(cfg[name][CALIBRATED]).get("stages") if fields else None
        if made is None:
            continue
        then = {**ABSENT, **made, "image": None}
        now = {**ABSENT, **stages(config), "image": _image(config)}
        chosen = f"{' and '.join(fields)} {'were' if fields[1:] else 'was'} chosen"
        for path, old, new in changes(then, now):
            if path not in fields:
                sentences[f"{path} is {_short(new)}, and was {_short(old)} when {chosen}"] = None
    return list(sentences)


def _others(made: Mapping[str, Any], config: Mapping[str, Any]) -> Iterator[str]:
    """Yield what thresholds were made for, for each way in which the run differs."""
    budget, model, task = config["budget"], config["model"], config["benchmark"]["task"]
    if budget is not None and made.get("tokens") not in (None, budget["tokens"]):
        yield f"{made['tokens']:g} tokens, not for the {budget['tokens']:g} of this run"
    if not same_weights(made["model"], model):
        yield f"the model {_weights(made['model'])}, not for {model['pretrained']}"
    if "task" in made:
        now, splits = _task(task), (_split(made["task"]), made["split"])
        made_task = {name: value for name, value in made["task"].items() if name not in SPLIT}
        same = {name: value for name, value in now.items() if name not in SPLIT} == made_task
        if not same or _split(now) not in splits:
            yield f"the questions of {_short(made['task'])}, not for those of {_short(now)}"


def _task(task: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in task.items() if name not in ASIDE}


def _split(task: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return None if task is None else {name: task[name] for name in SPLIT if name in task}


def changes(then: Any, now: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield the paths of the first tree at which the second differs, with both values."""
    if isinstance(then, Mapping) and isinstance(now, Mapping):
        for name, value in then.items():
            inner = f"{path}.{name}" if path else str(name)
            yield from changes(value, now.get(name), inner)
    elif then != now:
        yield path, then, now


def plain(node: Any) -> Any:
    """Convert a config node to plain, resolved data."""
    return OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node


def _short(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {part}" for name, part in value.items() if part is not None)
    return "none" if value is None else str(value)


def _image(config: Mapping[str, Any]) -> str | None:
    return config["image"] and config["image"]["name"]


def _weights(made: Mapping[str, Any]) -> str:
    mark = f" (weights {made['weights']})" if made["weights"] else ""
    return f"{made['pretrained']}{mark}"
