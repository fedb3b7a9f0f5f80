"""Terminal summary of a finished run, in a few lines."""

from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

from mustdrop.budget import floor_text
from mustdrop.runs.folder import agree, cpu_share, shared_machine
from mustdrop.runs.status import left_out


def summary(record: Mapping[str, Any], folder: Path, outcome: str) -> str:
    """Summarise a run in three lines, with a line for each note about its thresholds."""
    name = f"{record['model']} x {record['benchmark']} x {record['method']} at {record['budget']}"
    if record["config"].get("image"):
        name += f", image {record['config']['image']['name']}"
    if record["floor"] is not None:
        floor = floor_text(record["floor"])
        return f"{outcome}: {name}: floor {floor}, the budget cannot be reached\n  {folder}"
    score = record["metric"]
    value = record["metrics"].get(score)  # None if the metric is a file for a server
    counts = " · ".join(
        f"{name.replace('_', ' ')} {'-' if count is None else f'{count:.1f}'}"
        + (off_budget(record) if name == "executed_average" else "")
        for name, count in record["counts"].items()
    )
    controls = "".join(
        f" · {kind.replace('_', ' ')} {fmean(arm['scores'][score] for arm in arms):.3f}"
        for kind, arms in record.get("controls", {}).items()
        if all(score in arm["scores"] for arm in arms)
    )
    notes = [*record.get("thresholds", ()), *reach_notes(record)]
    if left_out(record):
        notes.append(left_out(record))
    lines = [
        f"{outcome}: {name}: {score} {'-' if value is None else f'{value:.3f}'} of {record['n']}"
        f"{controls}",
        f"  {counts} · FLOPs {record['flops_ratio']:.3f} of vanilla"
        f" · KV {record['kv_bytes'] / 2**20:.2f} MiB"
        f" · {record['seconds'] / record['n']:.3g} s a sample{machine(record)}",
        *(f"  note: {note}" for note in notes),
        f"  {folder}",
    ]
    return "\n".join(lines)


def off_budget(record: Mapping[str, Any]) -> str:
    """Describe how far a run is off its budget; empty if it meets the budget or has none."""
    nominal, executed = record["counts"]["nominal"], record["counts"]["executed_average"]
    if nominal is None or agree(executed, nominal):
        return ""
    if not nominal:
        return " (≠ budget)"
    return f" (≠ budget: {100 * (executed / nominal - 1):+.0f} %)".replace("-", "−")


def reach_notes(record: Mapping[str, Any]) -> list[str]:
    """Describe for which share of the prompts the budget is out of reach, one sentence each."""
    reach = record.get("reach", {})
    notes = []
    if "least_average" in reach:
        notes.append(
            "the budget is below the least executed average of the method, "
            f"{reach['least_average']['tokens']:.1f} tokens, for "
            f"{reach['least_average']['share_of_prompts']:.0%} of the prompts"
        )
    if "most_average" in reach:
        notes.append(
            f"the budget is above the {reach['most_average']['tokens']:.1f} vision tokens of "
            f"{reach['most_average']['share_of_prompts']:.0%} of the prompts, which keep all"
        )
    return notes


def machine(record: Mapping[str, Any]) -> str:
    """Describe, after the seconds of a run, why they do not compare; empty if they do."""
    shared = shared_machine(record)
    if shared is None:
        return " (other load on the machine is unknown)"
    if not shared:
        return ""
    timing, share = record["timing"], cpu_share(record["timing"])
    if timing["overlapped"]:
        reason = "another run used this machine"
    elif timing["ranks"] > 1:
        reason = f"{timing['ranks']} processes shared the work"
    elif share is None:
        reason = "the machine was loaded"
    else:
        reason = f"the run got {share:.0%} of the CPU it needed"
    return f" ({reason}: do not compare this time)"
