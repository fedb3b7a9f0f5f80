"""Schedules: given counts of MustDrop's tokens, read from a file."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

SCHEDULES = Path(__file__).parents[1] / "gpu" / "schedules.json"


def read_schedule(counts: str, model: str, method: str, budget: str) -> Mapping[str, Any]:
    """Counts of a method at a budget from a schedule file.

    Args:
        counts: ``schedule`` for the packaged file, or the path of one.
        model: Name of the model.
        method: Name of the method.
        budget: Name of the budget, such as ``t192``.

    Raises:
        ValueError: If the file holds no such counts.
    """
    path = SCHEDULES if counts == "schedule" else Path(counts)
    text = path.read_text(encoding="utf-8")
    content = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    try:
        schedule = content[model][method][budget]
        return {"windows": int(schedule["merged_windows"]), "after": list(schedule["after"])}
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"{path}: no counts (merged_windows, after) of {method} at {budget} for {model}"
        ) from error
