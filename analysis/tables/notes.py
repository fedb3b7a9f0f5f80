"""Notes below a result table: the methods of the intervals and the meaning of the marks.

Only notes that apply to the table are given. Knows nothing about layout.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import isnan
from typing import Any

import pandas as pd

from analysis.records.judgements import by_judge

OFF = "≠"
SHARED, UNKNOWN = "†", "?"  # marks after seconds
CONTROLS = ("vanilla", "random")  # controls that are separate runs
CONTROL_TEXTS = {
    "schedule": "random tokens, as many in each layer as in the row",
    "grid": "an even grid at the input, with as many tokens as each sample's executed average",
}
DIFFERENCES = (*CONTROLS, *CONTROL_TEXTS)
INTERVALS = {
    "wilson": "Wilson's 95 % interval",
    "t": "Student's t, 95 % (scores that are not all 0 or 1)",
    "cluster": "cluster-robust t by image, 95 %",
    "binomial": "exact counts of images, 95 % (fewer than five differ from the rest)",
}
DIFFERENCE_TEXT = (
    "on the same samples, with the 95 % interval of the pairs (Newcombe for scores of 0 and 1, "
    "else t; by image if samples share an image; from exact counts of images if fewer than five "
    "differ). The intervals are not adjusted for their number."
)
JUDGED_TEXT = (
    "The score is a judge's, over the samples with a verdict alone; the others are neither right "
    "nor wrong, and a difference is over the samples that were judged in both runs."
)
FLOOR_TEXT = (
    "floor: the smallest executed average that the method can reach; it is above the budget."
)


def interval_text(rows: Iterable[Mapping[Any, Any]]) -> str:
    """Names of the interval methods of the rows."""
    used = {row["interval"] for row in rows}
    return ", or ".join(INTERVALS[name] for name in INTERVALS if name in used) or "no interval"


def calibrations(rows: Iterable[Mapping[Any, Any]]) -> Iterator[str]:
    """Notes on thresholds that were searched on the prompts of another benchmark."""
    methods: dict[tuple[str, str], dict[str, None]] = {}
    for row in rows:
        if row["calibrated_on"]:
            methods.setdefault((row["benchmark"], row["calibrated_on"]), {})[row["method"]] = None
    for (benchmark, other), names in methods.items():
        yield (
            f"{benchmark}: the thresholds of {', '.join(names)} were searched on the prompts of "
            f"{other}, because {benchmark} has no split for it."
        )


def timings(rows: Iterable[Mapping[Any, Any]]) -> Iterator[str]:
    """Notes on whether the machine was shared while the rows were timed."""
    states = {row["shared_machine"] for row in rows}
    if True in states:
        yield (
            f"{SHARED}: another run overlapped, or the run got less than 90 % of the CPU that it "
            "could use; these seconds cannot be compared."
        )
    if None in states:
        yield f"{UNKNOWN}: it is unknown whether other work ran on the machine during the timing."
    if states == {False}:
        yield "s per sample: no other run overlapped, and every run got at least 90 % of its CPU."


def notes(rows: Sequence[Mapping[Any, Any]], setups: Mapping[str, str]) -> Iterator[str]:
    """Notes of a table of runs.

    Args:
        rows: Rows of the table.
        setups: Letter of each setup.
    """
    ran = [row for row in rows if row["n"]]
    if any(row.get(f"vs_{control}_n") for control in DIFFERENCES for row in ran):
        yield f"Δ: difference {DIFFERENCE_TEXT}"
    for control in CONTROLS:
        for row in ran:
            if 0 < row[f"vs_{control}_n"] < row["n"]:
                yield (
                    f"{row['method']} {row['budget']}: {row[f'vs_{control}_n']} of its {row['n']} "
                    f"samples are shared with {control}."
                )
    for control, text in CONTROL_TEXTS.items():
        if any(row.get(f"vs_{control}_n") for row in ran):
            yield f"Δ {control}: difference to {text}; mean over seeds, run on the same batches."
    if any(row["vs_random_n"] for row in ran):
        yield (
            "Δ random: difference to random tokens chosen at the input. If they ran on the same "
            "batches as the row, they have each sample's executed average; otherwise they are a "
            "separate run within 1 % of the row's executed average."
        )
    if any(row["vs_random_n"] for row in ran) and any(
        not row["vs_random_n"] and row["method"] not in CONTROLS for row in ran
    ):
        yield (
            "Δ random –: no random tokens ran on the same batches, and no separate run is within "
            "1 %, or several are that differ in more than the seed."
        )
    judged = [row for row in ran if by_judge(str(row["metric"]))]
    if judged:
        yield JUDGED_TEXT
    for row in judged:
        if row["unjudged"]:
            name = f"{row['method']} {row['budget']}"
            yield f"{name}: {row['unjudged']:.0f} samples without a verdict."
    if any(row["matched"] is False for row in ran):
        yield f"{OFF}: the executed average is more than 1 % off the budget."
    yield from calibrations(rows)
    if any(pd.notna(row["floor"]) for row in rows):
        yield FLOOR_TEXT
    if any(not isnan(row["target_recall"]) for row in ran):
        yield (
            "target recall, %: share of the patches that the question is about and that the tokens "
            "carry in the last layer. A patch counts fully if it makes up a tenth of a token, and "
            "in proportion below."
        )
    yield "Vision tokens, KV cache: means over samples. FLOPs: share of vanilla, same prompts."
    yield from timings(ran)
    if len(setups) > 1:
        yield "Seconds can be compared only within one setup:"
        for setup, letter in setups.items():
            yield f"{letter} = {setup}"
