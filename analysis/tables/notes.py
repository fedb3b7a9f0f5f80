"""What a reader must know to read a result table: how intervals were found, what the marks mean.

Only what the table at hand calls for is said. Knows nothing about layout.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import isnan
from typing import Any

OFF = "≠"
SHARED, UNKNOWN = "†", "?"  # behind seconds
CONTROLS = ("vanilla", "random")  # runs of their own
CONTROL_TEXTS = {
    "schedule": "random tokens on the row's own schedule, as many in every layer",
    "grid": "an even grid from the input on, at each sample's executed average",
}
DIFFERENCES = (*CONTROLS, *CONTROL_TEXTS)
INTERVALS = {
    "wilson": "Wilson's 95 % interval",
    "t": "Student's t, 95 % (scores that are not all 0 or 1)",
    "cluster": "cluster-robust t by image, 95 %",
    "binomial": "exact counts of images, 95 % (fewer than five differ from the rest)",
}


def how(rows: Iterable[Mapping[Any, Any]]) -> str:
    """Which intervals the scores have."""
    used = {row["interval"] for row in rows}
    return ", or ".join(INTERVALS[name] for name in INTERVALS if name in used) or "no interval"


def timings(rows: Iterable[Mapping[Any, Any]]) -> Iterator[str]:
    """What shared the machine while the rows of a table were timed."""
    states = {row["shared_machine"] for row in rows}
    if True in states:
        yield (
            f"{SHARED}: another run overlapped, or the run got less than 90 % of the CPU that it "
            "could use: these seconds compare with nothing."
        )
    if None in states:
        yield f"{UNKNOWN}: it is not known what else ran on the machine while this was timed."
    if states == {False}:
        yield "s per sample: no other run overlapped, and each got 90 % or more of its CPU."


def notes(rows: Sequence[Mapping[Any, Any]], setups: Mapping[str, str]) -> Iterator[str]:
    """The notes of a table of cells.

    Args:
        rows: The table's.
        setups: The letter of each setup.
    """
    ran = [row for row in rows if row["n"]]
    if any(row.get(f"vs_{control}_n") for control in DIFFERENCES for row in ran):
        yield (
            "Δ: difference on the same samples, 95 % interval of the pairs (Newcombe for 0 and 1, "
            "else t; by image where samples share one; from exact counts of images where fewer "
            "than five differ), each by itself, not adjusted for their number."
        )
    for control in CONTROLS:
        for row in ran:
            if 0 < row[f"vs_{control}_n"] < row["n"]:
                yield (
                    f"{row['method']} {row['budget']}: {row[f'vs_{control}_n']} of its {row['n']} "
                    f"samples are shared with {control}."
                )
    for control, what in CONTROL_TEXTS.items():
        if any(row.get(f"vs_{control}_n") for row in ran):
            yield f"Δ {control}: to {what}; mean of its seeds, run beside it on the same batches."
    if any(row["vs_random_n"] for row in ran):
        yield (
            "Δ random: to random tokens from the input on, at each sample's executed average where "
            "they ran beside the row, else to the random arm within 1 % of its executed average."
        )
    if any(row["vs_random_n"] for row in ran) and any(
        not row["vs_random_n"] and row["method"] not in CONTROLS for row in ran
    ):
        yield (
            "Δ random –: nothing ran beside the row, and no random arm is within 1 %, or several "
            "are that differ in more than the seed."
        )
    if any(row["matched"] is False for row in ran):
        yield f"{OFF}: the executed average is more than 1 % off the budget."
    if any(not isnan(row["floor"]) for row in rows):
        yield "floor: the least executed average that the method reaches; the budget is below it."
    if any(not isnan(row["target_recall"]) for row in ran):
        yield (
            "target recall, %: patches asked about that the tokens carry in the last layer; a "
            "patch counts in full where it is a tenth of some token, in proportion below."
        )
    yield "Vision tokens, KV cache: means over samples. FLOPs: share of vanilla, same prompts."
    yield from timings(ran)
    if len(setups) > 1:
        yield "Seconds compare only within one setup:"
        for setup, letter in setups.items():
            yield f"{letter} = {setup}"
