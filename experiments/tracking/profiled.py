"""Numbers of a profile for a tracker: a few by name, and a table with all batches and arms."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mustdrop.profiling.break_even import AXES
from mustdrop.runs.folder import read_efficiency

COLUMNS = (
    "vision_tokens", "batch", "arm", "executed_average", "ttft_ms", "ttft / vanilla",
    "ttft / reference", "decisions_ms", "ms per token", "answer_ms", "prompts_per_second",
    "peak_bytes", "kv_bytes", "flops",
)  # fmt: skip
STATE = "profiled"  # state of a run that was profiled and not evaluated


def profile_stamp(folder: Path) -> str | None:
    """Time of the last change of a run's profile; None without one."""
    profile = read_efficiency(folder)
    return None if profile is None else profile["updated"]


def profile_numbers(profile: Mapping[str, Any]) -> dict[str, Any]:
    """Numbers by name: those of the first batch, and the verdicts on where the method pays."""
    numbers: dict[str, Any] = {"efficiency/state": profile["state"]}
    for cell in profile["cells"][:1]:
        for arm, summary in cell.get("summary", {}).items():
            for key in ("ttft_ms", "decisions_ms"):
                if key in summary:
                    numbers[f"efficiency/{arm}/{key}"] = summary[key]["median"]
            for key, ratio in summary["ratios"].items():
                if key.endswith("/vanilla"):
                    numbers[f"efficiency/{arm}/{key}"] = ratio["median"]
    for row in profile["break_even"]:
        fixed = ", ".join(f"{axis} {row[axis]}" for axis in AXES if axis != row["axis"])
        numbers[f"efficiency/pays from/{row['axis']}, {fixed}"] = row["from"] or "no measured value"
    return numbers


def profile_rows(profile: Mapping[str, Any]) -> list[list[Any]]:
    """Rows of the table, in the order of :data:`COLUMNS`; the longest answer is shown."""
    longest = max(profile["settings"]["new_tokens"])
    rows = []
    for cell in profile["cells"]:
        for arm, summary in cell.get("summary", {}).items():
            facts, ratios = cell["arms"][arm]["facts"], summary["ratios"]

            def median(key: str, summary: Mapping[str, Any] = summary) -> Any:
                return (summary.get(key) or {}).get("median")

            rows.append(
                [
                    cell["vision_tokens"], cell["batch"], arm, facts["executed_average"],
                    median("ttft_ms"), median("ttft_ms/vanilla", ratios),
                    median("ttft_ms/reference", ratios), median("decisions_ms"),
                    median(f"tpot_{longest}_ms"), median(f"e2e_{longest}_ms"),
                    median("prompts_per_second"), median("peak_bytes"), facts.get("kv_bytes"),
                    facts["flops"],
                ]
            )  # fmt: skip
    return rows
