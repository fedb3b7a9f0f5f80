"""What runs score and what they cost, as points; and methods by the stages that drop.

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
    """One run.

    Attributes:
        x: Its cost.
        y: Its score, in percent if it is a share, with the ends of its 95 % interval.
        low: Of the interval.
        high: Of the interval.
        met: Whether its budget was met within 1 %, or there was none.
        asked: Whether there was a budget.
    """

    x: float
    y: float
    low: float
    high: float
    met: bool
    asked: bool = True


def points(cells: Sequence[RunResult], against: Cost) -> dict[str, list[Point]]:
    """Each method's runs by cost; a control on the image makes another line.

    Args:
        cells: Runs of one experiment, model and benchmark.
        against: What is spent.

    Raises:
        ValueError: If none has a score, or latencies were taken on several setups.
    """
    ran = [cell for cell in cells if cell.metric is not None and cell.executed > 0]
    if not ran:
        raise ValueError("no run has an accuracy to draw")
    if against == "latency":
        _one_setup(ran)
    share = all(cell.samples["score"].between(0, 1).all() for cell in ran)
    scale = 100.0 if share else 1.0
    lines: dict[str, list[Point]] = {}
    for cell in ran:
        found = mean_interval(cell.samples["score"], cell.samples["image"])
        met = cell.budget is None or agree(cell.executed, cell.budget)
        ends = (scale * found.value, scale * found.low, scale * found.high)
        lines.setdefault(name_of(cell), []).append(
            Point(_cost(cell, against), *ends, met, cell.budget is not None)
        )
    return {name: sorted(line, key=lambda point: point.x) for name, line in lines.items()}


def families(cells: Sequence[RunResult]) -> dict[str, list[str]]:
    """Methods by the stages that drop: the encoder, the input, the prefill, several."""
    family = {name_of(cell): _family(cell) for cell in cells if cell.metric is not None}
    family.pop("vanilla", None)
    found = {each: [name for name, own in family.items() if own == each] for each in FAMILIES}
    return {each: names for each, names in found.items() if names}


def name_of(cell: RunResult) -> str:
    """A line's name: its method, and the control on the image where there is one."""
    return f"{cell['method']}, {cell.image} image" if cell.image else str(cell["method"])


def _family(cell: RunResult) -> str:
    stages = [told for stage, told in STAGES.items() if cell["config"].get(stage)]
    if stages == ["prefill"]:
        entering = np.array(cell.samples["vision_tokens"].tolist())
        if (entering[:, :1] == entering).all():  # nothing left after any layer
            return "input of the language model"
    return stages[0] if len(stages) == 1 else "several stages" if stages else "no stage"


def _cost(cell: RunResult, against: Cost) -> float:
    if against == "tokens":
        return cell.executed
    if against == "flops":
        return 100 * float(cell["flops_ratio"])
    return float(np.median(cell.samples["seconds"].to_numpy(dtype=float)))


def _one_setup(cells: Sequence[RunResult]) -> None:
    """Timings of two machines, or of two states of the code, are not held against each other."""
    setups = sorted({cell.setup for cell in cells})
    if len(setups) > 1:
        raise ValueError(
            f"latency was measured on {len(setups)} setups, which do not compare: "
            + " | ".join(setups)
        )
    if any(cell.samples["seconds"].isna().any() for cell in cells):
        raise ValueError("latency is not on record for every sample")
