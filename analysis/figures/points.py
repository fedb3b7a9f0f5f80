"""Score and cost of runs as points, and families of methods by the stages that drop.

Knows nothing about how points are drawn.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from analysis.records.cells import RunResult, agree
from analysis.statistics.intervals import mean_interval

Cost = Literal["tokens", "flops", "latency"]
STAGES = {"vision": "vision encoding", "prefill": "prefill", "decode": "decoding"}
FAMILIES = (
    "vision encoding",
    "input of the language model",
    "prefill",
    "decoding",
    "several stages",
    "no stage",
)


@dataclass(frozen=True)
class Point:
    """Score and cost of one run.

    Attributes:
        x: Cost.
        y: Mean score; in percent if all scores lie in [0, 1].
        low: Lower end of the 95 % interval.
        high: Upper end of the 95 % interval.
        met: Whether the run met its budget within 1 % or had no budget.
        has_budget: Whether the run had a budget.
    """

    x: float
    y: float
    low: float
    high: float
    met: bool
    has_budget: bool = True


def points(cells: Sequence[RunResult], against: Cost) -> dict[str, list[Point]]:
    """Points of each method, sorted by cost; a control on the image counts as another method.

    Args:
        cells: Runs of one experiment, model and benchmark.
        against: Kind of cost.

    Raises:
        ValueError: If no run has a score, or latencies were measured on several setups.
    """
    ran = with_cost(cells)
    if not ran:
        raise ValueError("no run has an accuracy to draw")
    if against == "latency":
        _check_setup(ran)
    share = all(cell.samples["score"].between(0, 1).all() for cell in ran)
    scale = 100.0 if share else 1.0
    lines: dict[str, list[Point]] = {}
    for cell in ran:
        mean = mean_interval(cell.samples["score"], cell.samples["image"])
        met = cell.budget is None or agree(cell.executed, cell.budget)
        values = (scale * mean.value, scale * mean.low, scale * mean.high)
        lines.setdefault(name_of(cell), []).append(
            Point(_cost(cell, against), *values, met, cell.budget is not None)
        )
    return {name: sorted(line, key=lambda point: point.x) for name, line in lines.items()}


def with_cost(cells: Sequence[RunResult]) -> list[RunResult]:
    """Runs that a figure of accuracy against cost shows: with a score and with vision tokens."""
    return [cell for cell in cells if cell.metric is not None and cell.executed > 0]


def families(cells: Sequence[RunResult]) -> dict[str, list[str]]:
    """Group methods by the stages that drop; the keys are those of ``FAMILIES``."""
    family = {name_of(cell): _family(cell) for cell in with_cost(cells)}
    family.pop("vanilla", None)
    members = {
        title: [name for name, group in family.items() if group == title] for title in FAMILIES
    }
    return {title: names for title, names in members.items() if names}


def name_of(cell: RunResult) -> str:
    """Name of a line: the method, with the control on the image if there is one."""
    return f"{cell['method']}, {cell.image} image" if cell.image else str(cell["method"])


def _family(cell: RunResult) -> str:
    stages = [name for stage, name in STAGES.items() if cell["config"].get(stage)]
    if stages == ["prefill"]:
        entering = np.array(cell.samples["vision_tokens"].tolist())
        if (entering[:, :1] == entering).all():  # no token is dropped after a layer
            return "input of the language model"
    return stages[0] if len(stages) == 1 else "several stages" if stages else "no stage"


def _cost(cell: RunResult, against: Cost) -> float:
    if against == "tokens":
        return cell.executed
    if against == "flops":
        return 100 * float(cell["flops_ratio"])
    return float(np.median(cell.samples["seconds"].to_numpy(dtype=float)))


def _check_setup(cells: Sequence[RunResult]) -> None:
    """Refuse to compare timings from different machines or code versions."""
    setups = sorted({cell.setup for cell in cells})
    if len(setups) > 1:
        raise ValueError(
            f"latency was measured on {len(setups)} setups, which cannot be compared: "
            + " | ".join(setups)
        )
    if any(cell.samples["seconds"].isna().any() for cell in cells):
        raise ValueError("latency is not recorded for every sample")
