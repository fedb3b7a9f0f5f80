"""Check the published numbers against their schema: allowed words, ranges, contradictions.

Knows nothing about the meaning of the numbers; ``analysis/reference/README.md`` explains it.
"""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from analysis.published.numbers import KEY, NUMBERS, published

FULL = {"LLaVA-1.5-7B": 576, "LLaVA-NeXT-7B": 2880, "Video-LLaVA-7B": 2048}
WORDS = {
    "model": set(FULL),
    "budget_kind": {
        *("nominal", "equal average", "executed", "cache average", "share", "vanilla", "as stated"),
    },
    "split": {"", "test", "val", "image", "first 1000"},
    "metric": {
        *("accuracy", "F1", "ANLS", "CIDEr", "score", "score_sum", "score_perception"),
        *("score_cognition", "judge_accuracy", "judge_score", "mean", "relative_accuracy"),
        *("retention", "flops", "relative_flops", "wall_time", "prefill_time", "latency"),
        *("decode_time_per_token", "gpu_memory", "kv_cache", "kv_cache_vision"),
    },
    "provenance": {"own", "re-run", "copied", "user report", "unstated"},
}
# Metrics of each unit; sources differ in the unit of a metric that is listed twice.
UNITS = {
    "percent": (
        *("accuracy", "F1", "ANLS", "judge_accuracy", "retention"),
        *("relative_accuracy", "relative_flops"),
    ),
    "points": (
        *("score", "score_sum", "score_perception", "score_cognition"),
        *("judge_score", "mean", "CIDEr"),
    ),
    "s": ("wall_time", "latency", "prefill_time"),
    "ms": ("prefill_time", "decode_time_per_token"),
    "MB": ("kv_cache", "kv_cache_vision"),
    "GB": ("gpu_memory",),
    "TFLOPs": ("flops",),
}
# Highest value of a unit, and of single metrics; a relative accuracy may exceed 100 slightly.
HIGHEST = {
    "percent": 100.0, "points": 2800.0, "s": 1e5, "ms": 1e5, "MB": 1e5, "GB": 200.0, "TFLOPs": 1e3,
}  # fmt: skip
HIGHEST_OF = {
    "relative_accuracy": 120.0, "judge_score": 5.0, "score": 1000.0, "score_perception": 2000.0,
    "score_cognition": 800.0, "CIDEr": 200.0,
}  # fmt: skip


def check(path: Path = NUMBERS) -> pd.DataFrame:
    """Read the published numbers and check their schema.

    Raises:
        ValueError: If lines break the schema; the message lists every such line with the fault.
    """
    frame = published(path)
    faults = [*_check_rows(frame), *_check_repeats(frame)]
    if faults:
        lines = "\n".join(f"line {line}: {text}" for line, text in sorted(faults))
        raise ValueError(f"{path} breaks its schema:\n{lines}")
    return frame


def _check_rows(frame: pd.DataFrame) -> Iterator[tuple[int, str]]:
    for row in frame.to_dict("records"):
        line, metric, unit, value = (row[name] for name in ("line", "metric", "unit", "value"))
        for name, allowed in WORDS.items():
            if row[name] not in allowed:
                yield line, f"{name} must be one of {sorted(allowed)}, got {row[name]!r}"
        for name in ("method", "benchmark", "source", "budget"):
            if not row[name].strip() and (name, row["budget_kind"]) != ("budget", "as stated"):
                yield line, f"{name} must not be empty"
        units = [name for name, metrics in UNITS.items() if metric in metrics]
        if unit not in units:
            yield line, f"unit of {metric} must be one of {sorted(units)}, got {unit!r}"
        highest = HIGHEST_OF.get(metric, HIGHEST.get(unit, 0.0))
        if not 0 <= value <= highest:
            yield line, f"{metric} must be in [0, {highest:g}] {unit}, got {value:g}"
        full = FULL.get(row["model"], 0)
        if row["budget_kind"] == "vanilla" and row["tokens"] != full:
            yield line, f"vanilla of {row['model']} has {full} tokens, got {row['tokens']:g}"
        if (row["budget_kind"] == "vanilla") > (row["method"] == "vanilla"):
            yield line, f"budget_kind vanilla belongs to method vanilla, got {row['method']!r}"
        counted = row["budget_kind"] not in ("share", "as stated")
        if counted and not 0 < row["tokens"] <= full:
            yield line, f"tokens must be in (0, {full}], got {row['tokens']:g}"


def _check_repeats(frame: pd.DataFrame) -> Iterator[tuple[int, str]]:
    """Find lines in which a source repeats a cell, with the same or another value."""
    for _, rows in frame.groupby([*KEY, "source"], sort=False):
        if len(rows) > 1:
            first, *others = rows.to_dict("records")
            for row in others:
                relation = "as" if row["value"] == first["value"] else f"not {first['value']:g} as"
                yield (
                    row["line"],
                    f"{row['source']} gives {row['method']} on {row['benchmark']} a second time: "
                    f"{row['value']:g}, {relation} in line {first['line']}",
                )
