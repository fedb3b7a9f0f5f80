"""Fields that every record must have. Knows nothing about samples."""

from pathlib import Path
from typing import Any

from mustdrop.runs.folder import TornFile

COUNTS = ("nominal", "paper_average", "executed_average", "resident")
# Fields that every record must have.
FIELDS = (
    "experiment", "model", "benchmark", "method", "preset", "budget", "key", "config", "n", "floor",
    "metric", "counts", "flops_ratio", "kv_bytes", "vanilla_kv_bytes", "fingerprint", "versions",
    "hardware",
)  # fmt: skip


def check_record(record: dict[str, Any], folder: Path) -> None:
    """Check that a record has the fields that every table needs.

    Raises:
        TornFile: If one is missing or damaged.
    """
    path = folder / "record.json"
    if missing := [name for name in FIELDS if name not in record]:
        raise TornFile(path, f"the record lacks {', '.join(missing)}")
    if not isinstance(record["n"], int) or not isinstance(record["config"], dict):
        raise TornFile(path, "the record is damaged: n must be a count, config a mapping")
    counts = record["counts"]
    if record["n"] and not (isinstance(counts, dict) and set(COUNTS) <= set(counts)):
        raise TornFile(path, f"the record lacks counts: {', '.join(COUNTS)}")
