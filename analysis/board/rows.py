"""Rows of leaderboards: one run with its score, its interval as a bar, its kind and its origin.

Knows nothing about the other runs of a leaderboard.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import isnan
from typing import Any

from analysis.figures.palette import look_of
from analysis.packs.shared_runs import SharedRun
from analysis.records.cells import RunResult
from analysis.report.marks import look
from analysis.tables.sheets import Sheet

STAGES = ("vision", "key_tokens", "prefill", "decode")
# Columns that a leaderboard shows behind the score, where some run has a value.
SHOWN = ("Δ vanilla", "Δ random", "Δ schedule", "executed average", "FLOPs", "KV cache")
# Kinds of rows, in their order in a table, with the titles of their parts.
REFERENCE, RANKED, OFF, CONTROL, FLOOR = KINDS = (
    "reference", "ranked", "off", "control", "floor",
)  # fmt: skip
TITLES = {
    REFERENCE: "Reference",
    RANKED: "Methods at the budget",
    OFF: "Not within 1 % of the budget: no rank",
    CONTROL: "Controls and bounds: no rank",
    FLOOR: "The method cannot reach the budget",
}
INTERVAL = " [95 %]"  # end of the heads of columns with an interval


@dataclass(frozen=True)
class Row:
    """One run in a leaderboard.

    Attributes:
        method: Name of the method.
        variant: Settings or pack that distinguish this run from others of its method and budget.
        look: Colour and outline of the method's mark.
        stages: Stages in which the method acts.
        kind: Kind of the row, one of ``KINDS``.
        rank: Position by score among the methods at the budget; None for other kinds.
        score: Score with its interval.
        bar: Ends and middle of the interval, as shares of the scale of the leaderboard; None
            without an interval.
        cells: Texts of the columns ``heads`` of the leaderboard.
        origin: Name of the pack.
        hardware: Hardware of the run.
    """

    method: str
    variant: str
    look: Mapping[str, str]
    stages: tuple[str, ...]
    kind: str
    rank: int | None
    score: str
    bar: tuple[float, float, float] | None
    cells: tuple[str, ...]
    origin: str
    hardware: str


def result_row(
    run: SharedRun,
    cell: RunResult,
    numbers: Mapping[Any, Any],
    shown: Sheet,
    index: int,
    scale: tuple[float, float],
) -> Row:
    """Row of a run.

    Args:
        run: Run as it was packed.
        cell: The same run with its variant.
        numbers: Its row of the summary.
        shown: Sheet of the summary.
        index: Index of the run in that sheet.
        scale: Scores at the ends of the bars of the leaderboard.
    """
    low, high = scale
    texts = dict(zip(shown.heads, shown.rows[index], strict=True))
    ends = [numbers[name] for name in ("low", "accuracy", "high")]
    shares = [(end - low) / ((high - low) or 1.0) for end in ends]
    return Row(
        method=cell["method"],
        variant=cell.variant,
        look=look(cell["method"]),
        stages=tuple(stage for stage in STAGES if cell["config"].get(stage)),
        kind=_kind(cell, numbers["matched"]),
        rank=None,
        score=shown.rows[index][score_column(shown)],
        bar=None if any(map(isnan, shares)) else (shares[0], shares[1], shares[2]),
        cells=tuple(text for head, text in texts.items() if head.removesuffix(INTERVAL) in SHOWN),
        origin=run.origin,
        hardware=hardware_text(cell["hardware"]),
    )


def _kind(cell: RunResult, matched: bool | None) -> str:
    if cell.metric is None:
        return FLOOR
    if cell["method"] == "vanilla":
        return REFERENCE
    if not matched:
        return OFF
    return CONTROL if look_of(cell["method"]).grey else RANKED


def hardware_text(hardware: Mapping[str, Any] | None) -> str:
    """Hardware in a few words: the GPU, or the CPU with its number of threads."""
    if not hardware:
        return "–"
    if hardware.get("gpu"):
        return str(hardware["gpu"])
    threads = hardware.get("threads")
    return f"{hardware.get('cpu')}, {threads} thread{'' if threads == 1 else 's'}"


def score_column(shown: Sheet) -> int:
    """Index of the column of scores: the first with an interval that is no difference."""
    return next(
        index
        for index, head in enumerate(shown.heads)
        if head.endswith(INTERVAL) and not head.startswith("Δ")
    )
