"""Key of a run: a hash of the config entries that decide its results. Reads no files."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

# Config keys that do not enter the run key; benchmark.limit does not either.
UNKEYED = (
    "output_root", "force", "experiment", "launcher", "tracker", "device", "threads", "workers",
    "traces", "frame_cache", "calibrate_with",
)  # fmt: skip
# Name of a preset whose values are fields of the model, which enter the run key.
NAME_ONLY = "inputs"
# Later fields of the model, with the values that change nothing. A field with this value does not
# enter the run key, so that earlier runs keep theirs.
LATER_MODEL_FIELDS = {
    "resize": "hub", "system": None, "template": None, "min_pixels": None, "max_pixels": None,
    "frames": None,
}  # fmt: skip
# The same for later fields of runs, droppers and strategies.
LATER_FIELDS = {"cls_attention": "cls", "edges": "refuse", "batch_window": 1}


def run_key(config: Mapping[str, Any]) -> str:
    """Hash of ten digits over all values of a resolved config that decide its results."""
    text = json.dumps(deciding_entries(config), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def deciding_entries(config: Mapping[str, Any]) -> dict[str, Any]:
    """Copy of a config without the entries that cannot change its results."""
    ignored = (*UNKEYED, NAME_ONLY)
    entries = {
        name: value for name, value in without_later_fields(config).items() if name not in ignored
    }
    benchmark, model = entries.get("benchmark") or {}, entries.get("model") or {}
    entries["benchmark"] = {name: value for name, value in benchmark.items() if name != "limit"}
    entries["model"] = {
        name: value
        for name, value in model.items()
        if name not in LATER_MODEL_FIELDS or value != LATER_MODEL_FIELDS[name]
    }
    return entries


def without_later_fields(config: Mapping[str, Any]) -> dict[str, Any]:
    """Copy of a config without the later fields that change nothing, at any depth."""
    return {
        name: without_later_fields(value) if isinstance(value, Mapping) else value
        for name, value in config.items()
        if name not in LATER_FIELDS or value != LATER_FIELDS[name]
    }
