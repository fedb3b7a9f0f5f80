"""Find the runs that one side (arm) of a claim describes, and their samples.

Several runs form one arm if they differ in the seed only; otherwise the user must choose one.
Knows nothing about statistics and verdicts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from textwrap import shorten
from typing import Any

import pandas as pd

from analysis.claims.hypotheses import ArmSpec, DepthFormula
from analysis.published.matching import SHARE_STEP
from analysis.records.cells import CONTROL_NAMES, MATCH, RunResult, agree
from analysis.records.variants import alike, variants
from mustdrop.presets.depths import layer_at_depth

RECORDED = {name: kind for kind, name in CONTROL_NAMES.items()}  # schedule: schedule_random


class NotMeasured(ValueError):
    """The given runs cannot answer a claim; the message says what is missing."""


@dataclass(frozen=True, eq=False)
class ArmRuns:
    """The runs of one arm.

    Attributes:
        arm: Description that the runs fit.
        cells: Runs, one per seed.
        frames: Samples of each run; ``score`` is the score of this arm.
        executed: Number of vision tokens per layer, averaged over layers, samples and runs.
    """

    arm: ArmSpec
    cells: tuple[RunResult, ...]
    frames: tuple[pd.DataFrame, ...]
    executed: float

    @property
    def folders(self) -> tuple[str, ...]:
        """Folders of the runs."""
        return tuple(str(cell["folder"]) for cell in self.cells)

    @property
    def keys(self) -> tuple[str, ...]:
        """Keys of the runs, which do not depend on their folders."""
        return tuple(sorted(str(cell["key"]) for cell in self.cells))


def fits(cell: RunResult, arm: ArmSpec, any_budget: bool = False) -> bool:
    """Whether a run fits the description of an arm.

    Shares are equal if papers, which print percent with one decimal, print the same.

    Args:
        cell: The run.
        arm: The description.
        any_budget: Whether the budget may differ.
    """
    return (
        cell["method"] == arm.method
        and (any_budget or _same_budget(cell, arm))
        and all(
            _entry(cell["config"], name) == _of_model(cell["config"], value)
            for name, value in arm.config.items()
        )
    )


def _of_model(config: Mapping[str, Any], value: Any) -> Any:
    """Value of an arm for the model of a run: a formula becomes a layer."""
    if not isinstance(value, DepthFormula):
        return value
    return layer_at_depth(value.layer, value.depth, int(config["model"]["layers"]))


def _same_budget(cell: RunResult, arm: ArmSpec) -> bool:
    share = (cell["config"].get("budget") or {}).get("share")
    if arm.budget is None or arm.budget.share is None:
        wanted = None if arm.budget is None else arm.budget.tokens
        return share is None and cell.budget == wanted
    return share is not None and abs(share - arm.budget.share) <= SHARE_STEP


def find(
    cells: Sequence[RunResult], arm: ArmSpec, near: float | None = None, match: float = MATCH
) -> ArmRuns:
    """Find the runs of an arm among those of one model, benchmark and image condition.

    Args:
        cells: Runs to search.
        arm: Description that the runs must fit.
        near: Executed average to match. If no run at the arm's budget matches it, but a run of the
            same method at another budget does, that run is used.
        match: Largest relative difference of executed averages that match.

    Raises:
        NotMeasured: If no run fits, the runs lack the control or could not reach the budget, or
            several runs differ in more than the seed.
    """
    fitting = [cell for cell in cells if fits(cell, arm)]
    if near is not None and not any(_near(cell, near, match) for cell in fitting):
        others = [cell for cell in cells if fits(cell, arm, any_budget=True)]
        fitting = [cell for cell in others if _near(cell, near, match)] or fitting
    if not fitting:
        raise NotMeasured(f"no run of {arm}")
    ran = _without_copies([cell for cell in fitting if cell.metric is not None])
    if not ran:
        least = fitting[0]["floor"]
        least = f"{least} of the tokens" if isinstance(least, str) else f"{least} tokens"
        raise NotMeasured(f"{arm} cannot reach its budget: at least {least}")
    for cell in ran[1:]:
        if not alike(ran[0]["config"], cell["config"], but=("seed",)):
            differences = "; ".join(variants([run["config"] for run in ran]))
            raise NotMeasured(
                f"{len(ran)} runs fit {arm} and differ in more than the seed: "
                f"{shorten(differences, 240)}"
            )
    if arm.control is None:
        frames = tuple(cell.samples for cell in ran)
        return ArmRuns(arm, tuple(ran), frames, _mean([cell.executed for cell in ran]))
    return ArmRuns(
        arm,
        tuple(ran),
        tuple(_control_samples(cell, arm.control) for cell in ran),
        _mean([_control_executed(cell, arm.control) for cell in ran]),
    )


def _near(cell: RunResult, executed: float, match: float) -> bool:
    return cell.metric is not None and agree(cell.executed, executed, match)


def _without_copies(cells: Sequence[RunResult]) -> list[RunResult]:
    """Keep the copy with most samples of each run that lies in several folders."""
    kept: dict[str, RunResult] = {}
    for cell in cells:
        same = kept.get(cell["key"])
        if same is None or cell["n"] > same["n"]:
            kept[cell["key"]] = cell
    return list(kept.values())


def _control_samples(cell: RunResult, control: str) -> pd.DataFrame:
    scored = cell.samples.assign(score=cell.samples[control]).dropna(subset=["score"])
    if scored.empty:
        raise NotMeasured(f"{cell['folder']} ran without the control {control}")
    return scored


def _control_executed(cell: RunResult, control: str) -> float:
    controls = cell.record.get("controls") or {}
    passes = controls.get(RECORDED[control]) or ()
    return _mean([float(entry["counts"]["executed_average"]) for entry in passes])


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else float("nan")


def _entry(config: Mapping[str, Any], path: str) -> Any:
    """Value at a dotted path of a config; None if a part of the path is missing."""
    value: Any = config
    for name in path.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value
