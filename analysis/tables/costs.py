"""What runs cost, under each convention by its name: FLOPs of the prompt, bytes of the cache.

Shapes of decoders stand in ``analysis/reference/models.csv``, as records hold none; a model that is
not there gets what its record tells and no more. Knows nothing about how a table looks.
"""

from collections.abc import Mapping
from functools import cache
from math import nan
from statistics import fmean
from typing import Any

import numpy as np
import pandas as pd

from analysis.published.bands import cell as located
from analysis.published.bands import index
from analysis.published.formulas import macs_two_matrices
from analysis.published.numbers import PAPER, REFERENCE, published
from analysis.records.cells import RunResult
from analysis.tables.grid import Filled
from mustdrop.cost import PAPER_MB_PER_TOKEN, DecoderShape, flops, sparsevlm_macs
from mustdrop.runs.folder import shared_machine

# What a paper's row of costs tells, and its metrics there.
PUBLISHED = {"kv_mb": "kv_cache_vision", "tera_flops": "flops", "seconds": "wall_time"}
# What each count of operations is, by its column.
CONVENTIONS = {
    "macs": "MACs: multiply-accumulates of the whole prompt, three matrices, scoring and head",
    "flops": "FLOPs: 2 x MACs, what a FLOP counter says",
    "macs_three": "MACs, vision, 3 matrices: vision tokens alone, as SparseVLM's code counts",
    "macs_two": "MACs, vision, 2 matrices: as FastV, PyramidDrop and DivPrune count, too few",
}


TOLD = (
    *("resident", "kv_bytes", "kv_vision_bytes", "kv_paper_mb", *CONVENTIONS, "seconds"),
    *(f"paper_{name}" for name in PUBLISHED),
)


@cache
def shapes() -> Mapping[str, tuple[DecoderShape, int]]:
    """By model of ours, the shape of its decoder and its layers."""
    frame = pd.read_csv(REFERENCE / "models.csv")
    names = ("hidden", "query", "kv", "ffn", "vocab", "bytes_per_value")
    return {
        row["model"]: (DecoderShape(**{name: row[name] for name in names}), row["layers"])
        for row in frame.to_dict("records")
    }


def costs(filled: Filled) -> pd.DataFrame:
    """A row per line and benchmark that ran or about which costs are published.

    Columns: method, budget, benchmark; resident (vision tokens in the cache while decoding, mean
    over layers), kv_bytes (of the whole prompt, from the record), kv_vision_bytes (of vision tokens
    alone), kv_paper_mb (0.525 MB a token); macs, flops, macs_three, macs_two
    (:data:`CONVENTIONS`); seconds (median a sample), shared_machine (whether something else ran
    meanwhile; None: not known); paper_kv_mb, paper_tera_flops, paper_seconds (of the whole
    benchmark). NaN: not known.
    """
    numbers, rows = index(published().to_dict("records")), []
    for line in filled.part.lines:
        for column in filled.part.columns:
            run = filled.runs.get((line.method or "", line.budget, column.benchmark or ""))
            row = {
                "method": line.method or line.published,
                "budget": line.budget,
                "benchmark": column.name,
                **(_of_run(run) if run else {}),
            }
            for name, metric in PUBLISHED.items():
                row[f"paper_{name}"] = nan
                if filled.part.published_model and line.published and column.published:
                    benchmark = column.published[0]
                    told = located(
                        numbers, filled.part.published_model, line.published, line.tokens,
                        benchmark, metric,
                    )  # fmt: skip
                    own = (one["value"] for one in told if one["source"].startswith(PAPER))
                    row[f"paper_{name}"] = next(own, nan)
            rows.append(row)
    frame = pd.DataFrame([{"shared_machine": None, **row} for row in rows]).astype(
        {"shared_machine": object}
    )
    return frame.reindex(columns=[*frame.columns, *(name for name in TOLD if name not in frame)])


def _of_run(run: RunResult) -> dict[str, Any]:
    record = run.record
    made = {
        "resident": float(record["counts"]["resident"]),
        "kv_bytes": float(record["kv_bytes"]),
        "kv_paper_mb": PAPER_MB_PER_TOKEN * record["counts"]["resident"],
        "macs": float(record["prefill_macs"]),
        "flops": float(flops(record["prefill_macs"])),
        "seconds": float(np.median(run.samples["seconds"])),
        "shared_machine": shared_machine(record),
    }
    if run["model"] not in shapes():
        return made
    shape, layers = shapes()[run["model"]]
    each = run.samples["vision_tokens"].tolist()
    made["kv_vision_bytes"] = 2 * layers * made["resident"] * shape.kv * shape.bytes_per_value
    made["macs_three"] = fmean(sparsevlm_macs(tokens, shape) for tokens in each)
    made["macs_two"] = fmean(macs_two_matrices(tokens, shape) for tokens in each)
    return made
