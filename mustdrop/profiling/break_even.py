"""Break-even: from which prompt length, batch and answer length on a method is faster than vanilla.

Pure functions of a profile; knows nothing about models and devices.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

PAYS, COSTS, UNCLEAR = "pays", "costs", "unclear"
LENGTH, BATCH, ANSWER = AXES = ("vision_tokens", "batch", "new_tokens")


def verdict(ratio: Mapping[str, Any]) -> str:
    """Verdict on a ratio of times: its interval is below 1, above 1, or holds 1.

    With too few rounds for an interval the verdict is unclear.
    """
    low, high = ratio["low"], ratio["high"]
    if low is None or high is None:
        return UNCLEAR
    return PAYS if high < 1 else COSTS if low > 1 else UNCLEAR


def break_even(
    cells: Sequence[Mapping[str, Any]],
    arm: str = "method",
    base: str = "vanilla",
    axis: str = LENGTH,
) -> list[dict[str, Any]]:
    """Find where a method pays.

    Args:
        cells: Entries of efficiency.json with their summaries.
        arm: Arm that is judged.
        base: Arm that it is compared with.
        axis: What grows: the vision tokens of a prompt, the prompts of a batch, or the new tokens
            of an answer (1: time to the first token).

    Returns:
        A row for each combination of the two other axes: the axis and the values of the others;
        points (value on the axis, ratio and verdict of each measurement); and from, the least
        measured value from which on the method pays at every value; None where there is none.
    """
    rows: dict[tuple[int, ...], list[dict[str, Any]]] = {}
    others = [name for name in AXES if name != axis]
    for where, ratio in _ratios(cells, arm, base):
        point = {"at": where[axis], "ratio": ratio["median"], "verdict": verdict(ratio)}
        rows.setdefault(tuple(where[name] for name in others), []).append(point)
    out = []
    for fixed, points in sorted(rows.items()):
        points = sorted(points, key=lambda point: point["at"])
        first = None
        for point in reversed(points):
            if point["verdict"] != PAYS:
                break
            first = point["at"]
        values = dict(zip(others, fixed, strict=True))
        out.append({"axis": axis, **values, "from": first, "points": points})
    return out


def break_even_on_all_axes(cells: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows of all axes; of batches and answers only where several of them were measured."""
    rows = [row for axis in AXES for row in break_even(cells, axis=axis)]
    return [row for row in rows if row["axis"] == LENGTH or len(row["points"]) > 1]


def _ratios(
    cells: Sequence[Mapping[str, Any]], arm: str, base: str
) -> Iterator[tuple[dict[str, int], Mapping[str, Any]]]:
    """Place on the axes and ratio of each measurement of a whole answer or of the first token."""
    for cell in cells:
        for key, ratio in cell["summary"].get(arm, {}).get("ratios", {}).items():
            measure, _, other = key.partition("/")
            if other == base and not measure.startswith("tpot"):
                tokens = 1 if measure == "ttft_ms" else int(measure.split("_")[1])
                where = {name: cell[name] for name in (LENGTH, BATCH)}
                yield {**where, ANSWER: tokens}, ratio
