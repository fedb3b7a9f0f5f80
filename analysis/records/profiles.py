"""Read the profiles (efficiency.json) of a results folder as one row per arm and batch.

Knows nothing about tables or figures.
"""

from collections.abc import Iterator, Mapping, Sequence
from math import nan
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.records.left_out import leave_out
from mustdrop.runs.folder import EFFICIENCY, LOW_SHARE, TornFile, cpu_share, read_efficiency

NAMES = ("experiment", "model", "method", "budget", "benchmark")
# Column -> key of a summary in efficiency.json. Each gives a median with the ends of its interval.
TIMES = {
    "ttft_ms": "ttft_ms", "decisions_ms": "decisions_ms", "peak_bytes": "peak_bytes",
    "prompts_per_second": "prompts_per_second",
}  # fmt: skip
PARTS = ("entry", "encoder", "vision", "key_tokens", "layers", "prefill", "cache", "head")
RATIOS = {"vs_vanilla": "ttft_ms/vanilla", "vs_reference": "ttft_ms/reference"}


def load_profiles(roots: Sequence[Path]) -> list[dict[str, Any]]:
    """Profiles under some folders, each once; the key ``folder`` holds the run's folder.

    Raises:
        FileNotFoundError: If a folder is missing.
        ValueError: If there is no profile with a measured round.

    Warns:
        LeftOut: If a file cannot be read.
    """
    profiles = {}
    for root in roots:
        if not root.is_dir():
            raise FileNotFoundError(f"no results folder {root}")
        for path in sorted(root.rglob(EFFICIENCY)):
            try:
                profile = read_efficiency(path.parent)
            except TornFile as error:
                leave_out(error)
                continue
            if profile is not None and any("summary" in cell for cell in profile["cells"]):
                profiles[path.resolve()] = {**profile, "folder": str(path.parent)}
    if not profiles:
        names = ", ".join(map(str, roots))
        raise ValueError(f"no profile ({EFFICIENCY}) under {names}; mustdrop profile makes one")
    return list(profiles.values())


def profiled(root: Path) -> bool:
    """Whether a folder holds a profile."""
    return root.is_dir() and next(root.rglob(EFFICIENCY), None) is not None


def profile_frame(profiles: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """One row per arm of every batch.

    Returns:
        Columns: the names of the run; device, dtype, attention, weights, rounds, shared_machine;
        vision_tokens, batch, arm, executed_average; flops, flops_formula, kv_bytes, kv_formula;
        ttft_ms, decisions_ms, peak_bytes and prompts_per_second, each with _low and _high;
        part_<name>_ms; vs_vanilla and vs_reference of the time to the first token; new_tokens and,
        for the longest answer, tpot_ms, e2e_ms and e2e_vs_vanilla; full_ttft_ms, extrapolated from
        a model of reduced depth. NaN: not measured.
    """
    return pd.DataFrame([row for profile in profiles for row in _rows(profile)])


def _rows(profile: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    settings = profile["settings"]
    longest = max(settings["new_tokens"])
    share = cpu_share(profile["timing"]) if profile.get("timing") else None
    for cell in profile["cells"]:
        for arm, summary in cell.get("summary", {}).items():
            facts, ratios = cell["arms"][arm]["facts"], summary["ratios"]
            answer = {"tpot": f"tpot_{longest}_ms", "e2e": f"e2e_{longest}_ms"}
            yield {
                **{name: profile[name] for name in NAMES},
                "device": profile["hardware"]["name"],
                **{name: settings[name] for name in ("dtype", "attention", "weights")},
                "rounds": cell["rounds"],
                "shared_machine": None if share is None else share < LOW_SHARE,
                **{name: cell[name] for name in ("vision_tokens", "batch", "images", "frames")},
                "processor_ms": _middle(cell["processor_ms"]),
                "arm": arm, "executed_average": facts["executed_average"],
                **{
                    name: nan if facts.get(name) is None else float(facts[name])
                    for name in ("flops", "flops_formula", "kv_bytes", "kv_formula")
                },
                **_columns(summary, TIMES),
                **_columns(summary, {f"part_{part}_ms": f"part_{part}_ms" for part in PARTS}),
                **_columns(ratios, RATIOS),
                **_columns(summary, {f"{name}_ms": key for name, key in answer.items()}),
                **_columns(ratios, {"e2e_vs_vanilla": f"{answer['e2e']}/vanilla"}),
                "new_tokens": longest,
                "full_ttft_ms": summary.get("full_depth", {}).get("ttft_ms", nan),
            }  # fmt: skip


def _columns(summary: Mapping[str, Any], keys: Mapping[str, str]) -> dict[str, float]:
    """Median and ends of the interval of some summaries; NaN where there is none."""
    columns = {}
    for name, key in keys.items():
        value = summary.get(key) or {"median": nan, "low": None, "high": None}
        columns[name] = float(value["median"])
        for end in ("low", "high"):
            columns[f"{name}_{end}"] = nan if value[end] is None else float(value[end])
    return columns


def _middle(values: Sequence[float]) -> float:
    return sorted(values)[len(values) // 2]
