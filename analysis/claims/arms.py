"""Which runs an arm of a claim means, and what they answered.

Several runs are one arm if only the seed tells them apart; else it is not for this code to choose.
Knows nothing about statistics and verdicts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from textwrap import shorten
from typing import Any

import pandas as pd

from analysis.claims.hypotheses import ArmSpec
from analysis.records.cells import CONTROL_NAMES, MATCH, RunResult, agree
from analysis.records.variants import alike, variants

RECORDED = {name: kind for kind, name in CONTROL_NAMES.items()}  # schedule: schedule_random


class NotMeasured(ValueError):
    """The runs at hand do not have what a claim asks for; says what is missing."""


@dataclass(frozen=True, eq=False)
class ArmRuns:
    """The runs of one arm.

    Attributes:
        arm: What was asked for.
        cells: One run a seed.
        frames: Per run its samples, ``score`` being the arm's.
        executed: Vision tokens that entered a layer, mean over layers, samples and runs.
    """

    arm: ArmSpec
    cells: tuple[RunResult, ...]
    frames: tuple[pd.DataFrame, ...]
    executed: float

    @property
    def folders(self) -> tuple[str, ...]:
        """Where the runs live."""
        return tuple(str(cell["folder"]) for cell in self.cells)

    @property
    def keys(self) -> tuple[str, ...]:
        """Which runs they are, wherever they live."""
        return tuple(sorted(str(cell["key"]) for cell in self.cells))


def fits(cell: RunResult, arm: ArmSpec) -> bool:
    """Whether a run is one that the arm describes."""
    return (
        cell["method"] == arm.method
        and cell.budget == arm.budget
        and all(_entry(cell["config"], path) == value for path, value in arm.config.items())
    )


def find(
    cells: Sequence[RunResult], arm: ArmSpec, near: float | None = None, match: float = MATCH
) -> ArmRuns:
    """The runs of an arm among those of one model, benchmark and image condition.

    Args:
        cells: The runs.
        arm: Which of them.
        near: An executed average: where the arm's budget did not come near it and a run of the
            arm's method that was asked for another budget did, that run is the arm.
        match: Share within which executed averages are near.

    Raises:
        NotMeasured: If there are none, they lack what ran beside them or reach their floor only,
            or several differ in more than the seed.
    """
    every = [cell for cell in cells if fits(cell, arm)]
    if near is not None and not any(_near(cell, near, match) for cell in every):
        others = [cell for cell in cells if fits(cell, replace(arm, budget=cell.budget))]
        every = [cell for cell in others if _near(cell, near, match)] or every
    if not every:
        raise NotMeasured(f"no run of {arm}")
    ran = _once([cell for cell in every if cell.metric is not None])
    if not ran:
        raise NotMeasured(f"{arm}: out of its reach, its floor is {every[0]['floor']}")
    for cell in ran[1:]:
        if not alike(ran[0]["config"], cell["config"], but=("seed",)):
            told = "; ".join(variants([one["config"] for one in ran]))
            raise NotMeasured(
                f"{len(ran)} runs are {arm}, and none is chosen for you: {shorten(told, 240)}"
            )
    if arm.control is None:
        frames = tuple(cell.samples for cell in ran)
        return ArmRuns(arm, tuple(ran), frames, _mean([cell.executed for cell in ran]))
    return ArmRuns(
        arm,
        tuple(ran),
        tuple(_beside(cell, arm.control) for cell in ran),
        _mean([_executed(cell, arm.control) for cell in ran]),
    )


def _near(cell: RunResult, executed: float, match: float) -> bool:
    return cell.metric is not None and agree(cell.executed, executed, match)


def _once(cells: Sequence[RunResult]) -> list[RunResult]:
    """Each run once, though it lies in several folders: the one with most samples."""
    kept: dict[str, RunResult] = {}
    for cell in cells:
        same = kept.get(cell["key"])
        if same is None or cell["n"] > same["n"]:
            kept[cell["key"]] = cell
    return list(kept.values())


def _beside(cell: RunResult, beside: str) -> pd.DataFrame:
    scored = cell.samples.assign(score=cell.samples[beside]).dropna(subset=["score"])
    if scored.empty:
        raise NotMeasured(f"{cell['folder']} ran without {beside} beside it")
    return scored


def _executed(cell: RunResult, beside: str) -> float:
    kept = cell.record.get("controls") or {}
    arms = kept.get(RECORDED[beside]) or ()
    return _mean([float(arm["counts"]["executed_average"]) for arm in arms])


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else float("nan")


def _entry(config: Mapping[str, Any], path: str) -> Any:
    """A dotted entry; None where any of its parents is none."""
    value: Any = config
    for name in path.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value
