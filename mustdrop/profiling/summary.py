"""Medians with intervals of the rounds of a profile, and ratios of arms within a round.

Pure functions of the recorded rounds; knows nothing about models and devices.
"""

import statistics
from collections.abc import Mapping, Sequence
from math import comb
from typing import Any

from mustdrop.profiling.parts import DECISIONS

CONFIDENCE = 0.95
Summary = dict[str, float | int | None]


def median_interval(values: Sequence[float | int]) -> Summary:
    """Median, with the interval between two order statistics that covers it with 95 %.

    The interval assumes nothing about the distribution. It needs six values; with fewer it is None.
    """
    ordered, n = sorted(values), len(values)
    rank = _rank(n)
    low, high = (ordered[rank], ordered[n - 1 - rank]) if rank is not None else (None, None)
    return {"median": statistics.median(ordered), "low": low, "high": high, "n": n}


def _rank(n: int) -> int | None:
    """Largest index k such that values k and n - 1 - k enclose the median with 95 %."""
    tail, rank = 0.0, None
    for index in range(n // 2):
        tail += comb(n, index) / 2**n
        if 2 * tail > 1 - CONFIDENCE:
            break
        rank = index
    return rank


def ratio_interval(above: Sequence[float | int], below: Sequence[float | int]) -> Summary:
    """Median and interval of the ratios within each round."""
    return median_interval([a / b for a, b in zip(above, below, strict=True)])


def summarised(cell: Mapping[str, Any], factor: float | int = 1.0) -> dict[str, dict[str, Any]]:
    """Summary of each arm of a cell.

    Args:
        cell: Entry of a batch in efficiency.json.
        factor: Decoder layers of the full model over those that were measured.

    Returns:
        Arm -> numbers: medians of all that was measured; decisions_ms; tokens_per_second of
        answers and prompts_per_second of prefills; ratios to other arms, such as
        ``ttft_ms/vanilla``; for a model of reduced depth ``full_depth``, extrapolated numbers.
    """
    arms: Mapping[str, Any] = cell["arms"]
    summaries = {}
    for name, arm in arms.items():
        rounds: Mapping[str, Sequence[float | int]] = arm["rounds"]
        summary: dict[str, Any] = {key: median_interval(row) for key, row in rounds.items() if row}
        summary |= _derived(rounds, cell["batch"])
        ratios = {
            f"{key}/{other}": ratio_interval(row, arms[other]["rounds"][key])
            for key, row in rounds.items()
            for other in arms
            if row and other != name and key.startswith(("ttft", "e2e", "tpot"))
        }
        summaries[name] = {**summary, "ratios": ratios}
        if factor != 1.0 and rounds.get("ttft_ms"):
            summaries[name]["full_depth"] = full_depth(summary, factor)
    return summaries


def _derived(rounds: Mapping[str, Sequence[float | int]], batch: int) -> dict[str, Summary]:
    derived: dict[str, Summary] = {}
    parts = [rounds[f"part_{name}_ms"] for name in DECISIONS if f"part_{name}_ms" in rounds]
    if parts:
        derived["decisions_ms"] = median_interval([sum(row) for row in zip(*parts, strict=True)])
    if rounds.get("ttft_ms"):
        rate = [1e3 * batch / time for time in rounds["ttft_ms"]]
        derived["prompts_per_second"] = median_interval(rate)
    for key, row in rounds.items():
        if key.startswith("e2e_") and row:
            tokens = int(key.split("_")[1])
            rate = [1e3 * batch * tokens / time for time in row]
            derived[f"tokens_per_second_{tokens}"] = median_interval(rate)
    return derived


def reached(
    arm: Mapping[str, Any],
    summary: Mapping[str, Any],
    rates: Mapping[str, float | int],
    decoder_bytes: int,
) -> dict[str, float]:
    """Rates that an arm reaches, and their shares of the measured rates of the device.

    Args:
        arm: Entry of the arm, with its facts.
        summary: Summary of the arm.
        rates: Result of :func:`mustdrop.profiling.roofline.measured_rates`.
        decoder_bytes: Bytes of the decoder's weights, which every step of decoding reads.

    Returns:
        flops_per_second of the prefill, and with answers bytes_per_second of a step of decoding:
        weights and cache are read once. flops_share and bytes_share.
    """
    numbers = {}
    if "ttft_ms" in summary:
        numbers["flops_per_second"] = 1e3 * arm["facts"]["flops"] / summary["ttft_ms"]["median"]
    steps = [value["median"] for key, value in summary.items() if key.startswith("tpot_")]
    if steps and "kv_bytes" in arm["facts"]:
        read = decoder_bytes + arm["facts"]["kv_bytes"]
        numbers["bytes_per_second"] = 1e3 * read / statistics.median(steps)
    shares = {f"{name.split('_')[0]}_share": value / rates[name] for name, value in numbers.items()}
    return {**numbers, **shares}


def full_depth(summary: Mapping[str, Any], factor: float | int) -> dict[str, float]:
    """Medians extrapolated to the depth of the full model: the decoder's parts times a factor.

    Encoder and head stay as they were measured. A step of decoding is layers and head.
    """

    def part(name: str) -> float:
        return float(summary.get(f"part_{name}_ms", {"median": 0.0})["median"])

    deeper = sum(part(name) for name in ("layers", "prefill", "cache"))
    total = summary["ttft_ms"]["median"] + (factor - 1) * deeper
    numbers = {"ttft_ms": total}
    for key, value in summary.items():
        if key.startswith("tpot_"):
            step = part("head") + factor * max(0.0, value["median"] - part("head"))
            tokens = int(key.split("_")[1])
            numbers |= {key: step, f"e2e_{tokens}_ms": total + (tokens - 1) * step}
    return numbers
