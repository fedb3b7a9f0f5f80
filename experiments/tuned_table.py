"""Rows of the tables under conf/tuned/: what a calibration found, and what it was found on.

Rows are written as text, so that the comments of a table stay. Knows nothing about the search.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isnan
from pathlib import Path
from typing import Any

import yaml
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from analysis.statistics.intervals import Interval
from experiments.checks.thresholds import changes, made_for
from mustdrop.budget import Budget
from mustdrop.calibration.search import OutOfReach, SearchResult
from mustdrop.presets.compose import read_yaml
from mustdrop.presets.folders import conf_dir, preset_file, tuned_dir
from mustdrop.presets.tuned import (
    Row,
    inputs_of,
    made_inputs,
    references,
    same_budget,
    same_checkpoint,
    same_inputs,
)
from mustdrop.provenance.fingerprint import library_versions
from mustdrop.provenance.weights_mark import same_weights
from mustdrop.runs.disk import replace_text
from mustdrop.runs.key import UNKEYED

START = "- strategy: "  # first line of a row
HEAD = """# Tuned values of {model}. A row is used where strategy, benchmark and budget are a run's.
# executed: executed average on the first n calibration questions.
# held_out: the same on the next held_out_n questions, mean and 95 % interval.

"""


@dataclass(frozen=True)
class Calibrated:
    """Result of a calibration.

    Attributes:
        result: Result of the search.
        held_out: Executed average on other questions; None without a threshold.
        passes: Number of passes of the model over the questions that are searched on.
        seconds: Seconds of the whole calibration.
    """

    result: SearchResult | OutOfReach
    held_out: Interval | None
    passes: int
    seconds: float


def table_path(cfg: DictConfig) -> Path:
    """Return the table that a run of this model reads, and that new rows go to."""
    return tuned_dir() / f"{cfg.model.name}.yaml"


def held_out_questions(cfg: DictConfig) -> int:
    """Number of questions that a calibration measures on after its search."""
    held_out = cfg.calibration.held_out
    return cfg.calibration.n if held_out is None else held_out


def tuned_names(stage: str) -> dict[str, str]:
    """Fields of the chosen preset of a stage that refer to tuned values, with their strategy."""
    option = HydraConfig.get().runtime.choices[stage]
    preset = OmegaConf.create({stage: read_yaml(preset_file(stage, f"{option}.yaml"))})
    return {name: strategy for name, strategy, _ in references(preset, stage)}


def strategy_name(field: str) -> str:
    """Return the strategy whose tuned value a field of the chosen presets is.

    Raises:
        ValueError: If the preset does not refer to a tuned value.
    """
    stage, _, name = field.partition(".")
    names = tuned_names(stage)
    if name not in names:
        option = HydraConfig.get().runtime.choices[stage]
        raise ValueError(
            f"{field} of {stage}={option} is not read from a table: use calibration.write=false to "
            f"get a value to give by hand, or write {name}: ${{tuned:{option},{name}}} in a preset"
        )
    return names[name]


def require_free(cfg: DictConfig, field: str) -> None:
    """Make sure that no thresholds made for something else are overwritten.

    Raises:
        ValueError: If the table holds such thresholds, and ``force`` is false.
    """
    path, strategy = table_path(cfg), strategy_name(field)
    packaged = conf_dir() / "tuned" / path.name
    given = None if packaged == path else _present(packaged, strategy, cfg)
    if given is not None and ("model" not in given or same_weights(given["model"], cfg.model)):
        raise ValueError(
            f"the installed package has values of {strategy} for this model, benchmark, budget and "
            "inputs already: use calibration.write=false, or a new preset under conf/prefill"
        )
    was = _present(path, strategy, cfg)
    if was is None or cfg.force:
        return
    stage, now = field.partition(".")[0], made_for(cfg)
    keys = [key for key in ("model", "task", "stages") if key in was]
    thresholds = [f"stages.{stage}.{name}" for name in was.get("values", ())]
    lost = [
        f"{key} {old}, here {new}"
        for key, old, new in changes({k: was[k] for k in keys}, {k: now[k] for k in keys})
        if key not in (*thresholds, f"stages.{field}")
    ]
    if lost:
        raise ValueError(
            f"{path} holds values of {strategy} made for something else ({'; '.join(lost)}): "
            "use calibration.write=false to get values to give by hand, a new preset under "
            f"conf/{'model' if 'model' in lost[0] else 'prefill'} to keep both, or force=true to "
            "replace the row"
        )


def calibrated_row(cfg: DictConfig, field: str, done: Calibrated) -> Row:
    """Describe what a calibration found as a row of a table."""
    stage, _, name = field.partition(".")
    strategy, budget = strategy_name(field), Budget.parse(cfg.budget)
    assert budget is not None
    made, result = made_for(cfg), done.result
    share = 1.0 if budget.share is None else 100.0  # shares are stated in percent
    if isinstance(result, OutOfReach):
        nearest = round(share * result.nearest, 1)
        measured: dict[str, Any] = {"floor": nearest if budget.share is None else f"{nearest}%"}
    else:
        assert done.held_out is not None
        # values of the same row that were not searched
        others = [other for other in tuned_names(stage) if other != name]
        held = (done.held_out.value, done.held_out.low, done.held_out.high)
        measured = {
            "values": {name: result.value, **{other: cfg[stage][other] for other in others}},
            "executed": round(share * result.measured, 2),
            # too few questions that differ have no interval
            "held_out": [None if isnan(value) else round(share * value, 2) for value in held],
            "held_out_n": held_out_questions(cfg),
        }
        made["stages"][stage][name] = float(number(result.value))
    return {
        "strategy": strategy,
        "method": cfg.method.name,
        "benchmark": cfg.benchmark.name,
        "budget": budget.name if budget.share is None else str(cfg.budget),
        **measured,
        "n": cfg.calibration.n,
        "seed": cfg.seed,
        "command": command("calibrate"),
        "versions": versions(cfg),
        **made,
    }


def write_row(path: Path, row: Row, model: str) -> None:
    """Write a row to a table: in the place of the same row, else at the end."""
    chunks = _chunks(path) or [HEAD.format(model=model)]
    text = row_text(row)
    position = _same(chunks, row)
    if position is None:
        chunks.append(text)
    else:  # comments at the end of a chunk belong to the next row
        lines = chunks[position].splitlines(keepends=True)
        last = max(index for index, line in enumerate(lines) if not line.startswith(("#", "\n")))
        chunks[position] = text + "".join(lines[last + 1 :])
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_text(path, "".join(chunks))


def row_text(row: Row) -> str:
    """Format a row as yaml, one line for each entry."""
    lines = []
    for key, value in row.items():
        if key == "stages":
            lines.append("stages:")
            lines += [f"  {stage}: {_flow(fields)}" for stage, fields in value.items()]
        else:
            lines.append(f"{key}: {_flow(value)}")
    return "".join(f"{'  ' if index else '- '}{line}\n" for index, line in enumerate(lines))


def command(script: str) -> str:
    """Return the command as it was typed, without overrides that do not affect the result."""
    overrides = HydraConfig.get().overrides.task
    kept = [override for override in overrides if override.split("=")[0] not in UNKEYED]
    return f"mustdrop {script} {' '.join(kept)}".rstrip()


def versions(cfg: DictConfig) -> dict[str, str]:
    """Name the libraries and the dtype that a number was measured with."""
    installed = library_versions()
    revision = {"revision": cfg.model.revision} if cfg.model.revision else {}
    named = {name: installed[name] for name in ("torch", "transformers")}
    return {"dtype": cfg.model.dtype, **named, **revision}


def number(value: float | None) -> str:
    """Format a threshold so that plain YAML reads a number: 1.234e-03, 66.0."""
    if value is None:
        return "null"
    if isinstance(value, int):
        return str(value)
    return f"{value:.3e}" if 0 < abs(value) < 0.1 else str(float(f"{value:.4g}"))


def _flow(value: Any) -> str:
    """Format a value on one line; numbers as :func:`number` does, texts as YAML quotes them."""
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key}: {_flow(part)}' for key, part in value.items())}}}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"[{', '.join(map(_flow, value))}]"
    if isinstance(value, bool):
        return str(value).lower()
    if value is None or isinstance(value, int | float):
        return number(value)
    style = '"' if "\n" in value else None
    text = yaml.safe_dump([value], width=10**6, default_flow_style=True, default_style=style)
    return text.strip()[1:-1]  # without the brackets of the list, in which commas are quoted


def _chunks(path: Path) -> list[str]:
    """Split a table into its head and its rows; empty if there is no table."""
    if not path.is_file():
        return []
    head, *rows = f"\n{path.read_text(encoding='utf-8')}".split(f"\n{START}")
    return [f"{head}\n".lstrip("\n"), *(f"{START}{row.rstrip(chr(10))}\n" for row in rows)]


def _present(path: Path, strategy: str, cfg: DictConfig) -> Row | None:
    """Row of a table for a run's checkpoint, benchmark, budget and inputs; None without one."""
    chunks = _chunks(path)
    row = {"strategy": strategy, "benchmark": cfg.benchmark.name, "budget": cfg.budget}
    row |= {"model": {"pretrained": cfg.model.pretrained}}
    position = _same(chunks, {**row, "inputs": inputs_of(cfg.model)})
    return None if position is None else yaml.safe_load(chunks[position])[0]


def _same(chunks: Sequence[str], row: Row) -> int | None:
    """Position of the row of the same strategy, checkpoint, benchmark, budget and inputs."""
    inputs = made_inputs(row)
    for position, chunk in enumerate(chunks[1:], 1):
        (other,) = yaml.safe_load(chunk)
        same = all(other.get(key) == row.get(key) for key in ("strategy", "benchmark"))
        same = same and (inputs is None or same_inputs(other, inputs))
        same = same and ("model" not in row or same_checkpoint(other, row["model"]))
        if not same or ("budget" in other) != ("budget" in row):
            continue
        if "budget" not in row or same_budget(other["budget"], Budget.parse(row["budget"])):
            return position
    return None
