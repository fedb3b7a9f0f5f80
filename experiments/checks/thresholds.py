"""Provenance of tuned thresholds, and checks that only the runs they were made for use them.

A row of a table in conf/tuned/ states what its values were made for. A field that is set by hand
does not count as tuned (:mod:`mustdrop.presets.tuned`).
"""

from collections.abc import Iterator, Mapping, Sequence
from textwrap import shorten
from typing import Any

from omegaconf import DictConfig, OmegaConf

from experiments.checks.remedies import needs_calibration
from mustdrop.presets.from_budget import STAGES
from mustdrop.presets.tuned import (
    Row,
    inputs_of,
    made_inputs,
    of_other_benchmark,
    references,
    same_inputs,
    tuned_fields,
    tuned_row,
)
from mustdrop.provenance.weights_mark import same_weights, weights_mark
from mustdrop.runs.key import LATER_FIELDS, without_later_fields

# fields of a benchmark's task that do not change how many tokens are kept
ASIDE = ("_target_", "name", "data", "max_new_tokens")
SPLIT = ("split", "subset")
# rule of a dropper that is left out at its default
ABSENT = {"cls_attention": LATER_FIELDS["cls_attention"]}


def made_for(cfg: DictConfig) -> dict[str, Any]:
    """Describe what a calibration with this config is made for, as its row states it."""
    return {
        "model": weights(cfg),
        "inputs": inputs_of(plain(cfg.model)),
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
        kept[stage] = node and {name: node[name] for name in node if name != "_target_"}
    rules = ("positions", "vision_positions", "cls_attention")
    kept |= {name: cfg["dropper"][name] for name in rules if name in cfg["dropper"]}
    return without_later_fields(kept)  # as thresholds from before these fields have them


def chosen_together(cfg: DictConfig, stage: str) -> list[tuple[list[str], Row]]:
    """List the tuned fields of a stage, those of one row together, with their row."""
    groups: list[tuple[list[str], Row]] = []
    for name, row in tuned_fields(cfg, stage).items():
        group = next((fields for fields, other in groups if other is row), None)
        if group is None:
            groups.append(([name], row))
        else:
            group.append(name)
    return groups


def require_matching_thresholds(
    cfg: DictConfig, config: Mapping[str, Any], overrides: Sequence[str] = ()
) -> None:
    """Make sure that tuned thresholds were made for the model, inputs and questions of the run.

    The rows of another model, benchmark or budget are not found at all.

    Args:
        cfg: Composed config.
        config: Resolved config.
        overrides: Overrides as typed, for the command in the message.

    Raises:
        NeedsCalibration: If a threshold was made for something else.
    """
    for stage in STAGES:
        for fields, row in chosen_together(cfg, stage):
            wrong = list(_others(row, config))
            if wrong:
                values = " and ".join(f"{stage}.{name} {row['values'][name]:g}" for name in fields)
                lacking = [f"{stage}.{name}" for name in fields]
                made_for = (
                    f"{values} of conf/tuned {'were' if fields[1:] else 'was'} made for "
                    f"{' and for '.join(wrong)}"
                )
                raise needs_calibration(made_for, cfg, config, lacking, row, overrides)


def require_matching_model(cfg: DictConfig, searched: str) -> None:
    """Make sure that a calibration uses no threshold of another model or of other inputs.

    Args:
        cfg: Composed config.
        searched: Field that is searched, as ``stage.field``; its value is not used.

    Raises:
        ValueError: If a threshold that is not searched was made for others.
    """
    model = plain(cfg.model)
    for stage in STAGES:
        for field, row in tuned_fields(cfg, stage).items():
            path = f"{stage}.{field}"
            for other in () if path == searched else _other_model(row, model):
                raise ValueError(
                    f"{path} {row['values'][field]:g} of conf/tuned was made for {other}: give "
                    f"{path}=<value>"
                )


def borrowed(cfg: DictConfig) -> dict[str, list[str]]:
    """Thresholds that were searched on another benchmark's prompts: its name -> fields."""
    fields: dict[str, list[str]] = {}
    for stage in STAGES:
        for name, strategy, _ in references(cfg, stage):
            row = tuned_row(cfg, strategy, name)
            if row is not None and of_other_benchmark(row, cfg.benchmark.name):
                fields.setdefault(row["benchmark"], []).append(f"{stage}.{name}")
    return fields


def differing(cfg: DictConfig, config: Mapping[str, Any]) -> list[str]:
    """List how a run differs from what its tuned thresholds were made for, a sentence each."""
    sentences: dict[str, None] = {}
    for other, fields in borrowed(cfg).items():
        sentence = (
            f"{' and '.join(fields)} {'were' if fields[1:] else 'was'} searched on the prompts of "
            f"{other}, because {cfg.benchmark.name} has no split for it"
        )
        sentences[sentence] = None
    for stage in STAGES:
        for names, row in chosen_together(cfg, stage):
            if "stages" not in row:
                continue
            fields = [f"{stage}.{name}" for name in names]
            then = {**ABSENT, **row["stages"], "image": None}
            now = {**ABSENT, **stages(config), "image": _image(config)}
            chosen = f"{' and '.join(fields)} {'were' if fields[1:] else 'was'} chosen"
            for path, old, new in changes(then, now):
                if path not in fields:
                    sentence = f"{path} is {_short(new)}, and was {_short(old)} when {chosen}"
                    sentences[sentence] = None
    return list(sentences)


def _others(made: Mapping[str, Any], config: Mapping[str, Any]) -> Iterator[str]:
    """Yield what thresholds were made for, for each way in which the run differs."""
    task = config["benchmark"]["task"]
    yield from _other_model(made, config["model"])
    if "task" in made and not of_other_benchmark(made, config["benchmark"]["name"]):
        now, splits = _task(task), (_split(made["task"]), made["split"])
        made_task = {name: value for name, value in made["task"].items() if name not in SPLIT}
        same = {name: value for name, value in now.items() if name not in SPLIT} == made_task
        if not same or _split(now) not in splits:
            yield f"the questions of {_short(made['task'])}, not for those of {_short(now)}"


def _other_model(made: Row, model: Mapping[str, Any]) -> Iterator[str]:
    """Yield the weights and the inputs that thresholds were made for, where the run has others."""
    if "model" in made and not same_weights(made["model"], model):
        yield f"the model {_weights(made['model'])}, not for {model['pretrained']}"
    if not same_inputs(made, model):
        differ = list(changes(made_inputs(made), inputs_of(model)))
        then, now = (
            " and ".join(f"model.{name}={_quoted(values[part])}" for name, *values in differ)
            for part in (0, 1)
        )
        yield f"inputs with {then}, not for those with {now}"


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


def _quoted(value: Any) -> str:
    """A field's value for a message; a long text is shortened."""
    if isinstance(value, str) and " " in value:
        return repr(shorten(value, 40, placeholder=" ..."))
    return "null" if value is None else str(value)


def _image(config: Mapping[str, Any]) -> str | None:
    return config["image"] and config["image"]["name"]


def _weights(made: Mapping[str, Any]) -> str:
    mark = f" (weights {made['weights']})" if made["weights"] else ""
    return f"{made['pretrained']}{mark}"
