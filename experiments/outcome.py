"""What came of a run, in three lines, for whoever typed the command."""

from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any


def summary(record: Mapping[str, Any], folder: Path, told: str) -> str:
    """A run in three lines."""
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
        for name, value in record["counts"].items()
    )
    beside = "".join(
        f" · {kind.replace('_', ' ')} {fmean(one['scores'][score] for one in arms):.3f}"
        for kind, arms in record.get("controls", {}).items()
        if all(score in one["scores"] for one in arms)
    )
    return (
        f"{told}: {name}: {score} {'-' if found is None else f'{found:.3f}'} of {record['n']}"
        f"{beside}\n"
        f"  {counts} · FLOPs {record['flops_ratio']:.3f} of vanilla"
        f" · KV {record['kv_bytes'] / 2**20:.2f} MiB\n  {folder}"
    )
