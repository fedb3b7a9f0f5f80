"""Costs of runs under each named convention: FLOPs of the prompt, bytes of the cache.

Decoder shapes come from ``analysis/reference/models.csv``, because records have none; a model that
is not listed there gets only the costs in its record. Knows nothing about the layout of a table.
"""

from collections.abc import Mapping
from functools import cache
from math import nan
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pandas as pd

from analysis.published.bands import cell as located
from analysis.published.bands import index
from analysis.published.formulas import macs_two_matrices
from analysis.published.numbers import PAPER, REFERENCE, published
from analysis.records.cells import RunResult
from analysis.records.profiles import load_profiles, profile_frame
from analysis.tables.grid import Filled
from mustdrop.cost import PAPER_MB_PER_TOKEN, DecoderShape, flops, sparsevlm_macs
from mustdrop.runs.folder import shared_machine

# Costs that papers publish: column suffix -> metric in the published numbers.
PUBLISHED = {"kv_mb": "kv_cache_vision", "tera_flops": "flops", "seconds": "wall_time"}
# Description of each count of operations, by its column.
CONVENTIONS = {
    "macs": "MACs: multiply-accumulates of the whole prompt, three matrices, scoring and head",
    "flops": "FLOPs: 2 x MACs, the result of a FLOP counter",
    "macs_three": "MACs, vision, 3 matrices: vision tokens only, as SparseVLM's code counts",
    "macs_two": "MACs, vision, 2 matrices: as FastV, PyramidDrop and DivPrune count; too low",
}
# Costs that mustdrop profile measured for one prompt at a time.
MEASURED = (
    "measured_ttft_ms", "measured_vs_vanilla", "measured_token_ms", "measured_peak_bytes",
    "measured_kv_bytes", "measured_flops",
)  # fmt: skip
COST_COLUMNS = (
    *("resident", "kv_bytes", "kv_vision_bytes", "kv_paper_mb", *CONVENTIONS, "seconds"),
    *MEASURED,
    *(f"paper_{name}" for name in PUBLISHED),
)


@cache
def shapes() -> Mapping[str, tuple[DecoderShape, int]]:
    """Decoder shape and number of layers of each of our models."""
    frame = pd.read_csv(REFERENCE / "models.csv")
    names = ("hidden", "query", "kv", "ffn", "vocab", "bytes_per_value")
    return {
        row["model"]: (DecoderShape(**{name: row[name] for name in names}), row["layers"])
        for row in frame.to_dict("records")
    }


def costs(filled: Filled) -> pd.DataFrame:
    """Table of costs with one row per line and benchmark of a filled part.

    Columns: method, budget, benchmark; resident (vision tokens in the cache while decoding, mean
    over layers), kv_bytes (of the whole prompt, from the record), kv_vision_bytes (of vision tokens
    only), kv_paper_mb (0.525 MB per token); macs, flops, macs_three, macs_two
    (:data:`CONVENTIONS`); :data:`MEASURED`, from the profile of the run; seconds (median per
    sample), shared_machine (whether the machine was shared during the run; None: unknown);
    paper_kv_mb, paper_tera_flops, paper_seconds (of the whole benchmark). NaN: unknown.
    """
    numbers, rows = index(published().to_dict("records")), []
    for line in filled.part.lines:
        for column in filled.part.columns:
            run = filled.runs.get((line.method or "", line.budget, column.benchmark or ""))
            row = {
                "method": line.method or line.published,
                "budget": line.budget,
                "benchmark": column.name,
                **(_run_costs(run) if run else {}),
            }
            for name, metric in PUBLISHED.items():
                row[f"paper_{name}"] = nan
                if filled.part.published_model and line.published and column.published:
                    benchmark = column.published[0]
                    published_rows = located(
                        numbers, filled.part.published_model, line.published, line.tokens,
                        benchmark, metric,
                    )  # fmt: skip
                    values = (
                        entry["value"]
                        for entry in published_rows
                        if entry["source"].startswith(PAPER)
                    )
                    row[f"paper_{name}"] = next(values, nan)
            rows.append(row)
    frame = pd.DataFrame([{"shared_machine": None, **row} for row in rows]).astype(
        {"shared_machine": object}
    )
    missing = [name for name in COST_COLUMNS if name not in frame]
    return frame.reindex(columns=[*frame.columns, *missing])


def _measured_costs(folder: Path) -> dict[str, float]:
    """Costs in the profile of a run, of one prompt with one image; empty without a profile."""
    try:
        profiles = load_profiles([folder])
    except ValueError:  # the run was not profiled
        return {}
    frame = profile_frame(profiles)
    rows = frame[(frame["batch"] == 1) & (frame["images"] == 1)].set_index("arm")
    arm = "method" if "method" in rows.index else "vanilla"
    if arm not in rows.index:
        return {}
    row = rows.loc[arm]
    names = ("ttft_ms", "vs_vanilla", "tpot_ms", "peak_bytes", "kv_bytes", "flops")
    return {column: float(row[name]) for column, name in zip(MEASURED, names, strict=True)}


def _run_costs(run: RunResult) -> dict[str, Any]:
    """Costs of one run, by column."""
    record = run.record
    run_costs = {
        "resident": float(record["counts"]["resident"]),
        "kv_bytes": float(record["kv_bytes"]),
        "kv_paper_mb": PAPER_MB_PER_TOKEN * record["counts"]["resident"],
        "macs": float(record["prefill_macs"]),
        "flops": float(flops(record["prefill_macs"])),
        "seconds": float(np.median(run.samples["seconds"])),
        "shared_machine": shared_machine(record),
    }
    run_costs |= _measured_costs(Path(record["folder"]))
    if run["model"] not in shapes():
        return run_costs
    shape, layers = shapes()[run["model"]]
    counts = run.samples["vision_tokens"].tolist()
    run_costs["kv_vision_bytes"] = (
        2 * layers * run_costs["resident"] * shape.kv * shape.bytes_per_value
    )
    run_costs["macs_three"] = fmean(sparsevlm_macs(tokens, shape) for tokens in counts)
    run_costs["macs_two"] = fmean(macs_two_matrices(tokens, shape) for tokens in counts)
    return run_costs
