"""The outcome of a run, in a few lines, for whoever typed the command."""

from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

from mustdrop.runs.folder import agree, cpu_share, shared_machine


def summary(record: Mapping[str, Any], folder: Path, told: str) -> str:
    """A run in three lines, and a line for each way in which its thresholds are not its own."""
    name = f"{record['model']} x {record['benchmark']} x {record['method']} at {record['budget']}"
    if record["config"].get("image"):
        name += f", image {record['config']['image']['name']}"
    if record["floor"] is not None:
        return (
            f"{told}: {name}: floor {record['floor']:g}, the budget cannot be reached\n  {folder}"
        )
    score = record["metric"]
    found = record["metrics"].get(score)  # none where it is a file for a server
    counts = " · ".join(
        f"{name.replace('_', ' ')} {'-' if value is None else f'{value:.1f}'}"
        + (off_budget(record) if name == "executed_average" else "")
        for name, value in record["counts"].items()
    )
    beside = "".join(
        f" · {kind.replace('_', ' ')} {fmean(one['scores'][score] for one in arms):.3f}"
        for kind, arms in record.get("controls", {}).items()
        if all(score in one["scores"] for one in arms)
    )
    lines = [
        f"{told}: {name}: {score} {'-' if found is None else f'{found:.3f}'} of {record['n']}"
        f"{beside}",
        f"  {counts} · FLOPs {record['flops_ratio']:.3f} of vanilla"
        f" · KV {record['kv_bytes'] / 2**20:.2f} MiB"
        f" · {record['seconds'] / record['n']:.3g} s a sample{machine(record)}",
        *(f"  note: {note}" for note in record.get("thresholds", ())),
        f"  {folder}",
    ]
    return "\n".join(lines)


def off_budget(record: Mapping[str, Any]) -> str:
    """How far a run is off its budget; empty where it meets it, or has none."""
    budget, executed = record["config"]["budget"], record["counts"]["executed_average"]
    if not budget or agree(executed, float(budget["tokens"])):
        return ""
    if not budget["tokens"]:
        return " (≠ budget)"
    return f" (≠ budget: {100 * (executed / budget['tokens'] - 1):+.0f} %)".replace("-", "−")


def machine(record: Mapping[str, Any]) -> str:
    """What shared the machine while a run was timed, as an end of its seconds; empty if nothing."""
    shared = shared_machine(record)
    if shared is None:
        return " (what shared the machine is not known)"
    if not shared:
        return ""
    timing = record["timing"]
    if timing["overlapped"]:
        return " (another run was at work on this machine: no time to compare)"
    if timing["ranks"] > 1:
        return f" ({timing['ranks']} processes at work: no time to compare)"
    share = cpu_share(timing)
    got = "the machine was loaded" if share is None else f"it got {share:.0%} of the CPU it wanted"
    return f" ({got}: no time to compare)"
