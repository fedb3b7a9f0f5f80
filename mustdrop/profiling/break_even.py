"""Break-even: from which prompt length, batch and answer length on a method is faster than vanilla.

Pure functions of a profile; knows nothing about models and devices.
"""

from collections.abc import Mapping, Sequence
from typing import Any

PAYS, COSTS, UNCLEAR = "pays", "costs", "unclear"


def verdict(ratio: Mapping[str, Any]) -> str:
    """Verdict on a ratio of times: its interval is below 1, above 1, or holds 1.

    With too few rounds for an interval the verdict is unclear.
    """
    low, high = ratio["low"], ratio["high"]
    if low is None or high is None:
        return UNCLEAR
    return PAYS if high < 1 else COSTS if low > 1 else UNCLEAR


def break_even(
    cells: Sequence[Mapping[str, Any]], arm: str = "method", base: str = "vanilla"
) -> list[dict[str, Any]]:
    """Find where a method pays.

    Args:
        cells: Entries of efficiency.json with their summaries.
        arm: Arm that is judged.
        base: Arm that it is compared with.

    Returns:
        A row for each batch and answer length: batch, new_tokens (1: time to the first token),
        points (vision tokens, ratio and verdict of each measured length), and from_tokens, the
        least measured number of vision tokens from which on the method pays at every length; None
        where there is none.
    """
    rows: dict[tuple[int, int], list[dict[str, Any]]] = {}
    for cell in cells:
        for key, ratio in cell["summary"].get(arm, {}).get("ratios", {}).items():
            measure, _, other = key.partition("/")
            if other == base and not measure.startswith("tpot"):
                tokens = 1 if measure == "ttft_ms" else int(measure.split("_")[1])
                rows.setdefault((cell["batch"], tokens), []).append(
                    {
                        "vision_tokens": cell["vision_tokens"],
                        "ratio": ratio["median"],
                        "verdict": verdict(ratio),
                    }
                )
    out = []
    for (batch, tokens), points in sorted(rows.items()):
        points = sorted(points, key=lambda point: point["vision_tokens"])
        first = None
        for point in reversed(points):
            if point["verdict"] != PAYS:
                break
            first = point["vision_tokens"]
        row = {"batch": batch, "new_tokens": tokens, "from_tokens": first, "points": points}
        out.append(row)
    return out
