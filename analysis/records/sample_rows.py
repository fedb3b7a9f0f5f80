"""Turn one line of samples.jsonl into a row for tables and figures.

Knows nothing about runs.
"""

from math import exp, fsum, nan
from typing import Any

import pandas as pd

# Kinds of control passes on a method's own batches: name in records -> name in tables.
CONTROL_NAMES = {"schedule_random": "schedule", "flat_random": "flat", "flat_grid": "grid"}


def sample_row(line: dict[str, Any], metric: str) -> dict[str, Any]:
    """Row of one sample, with the values that tables and figures need."""
    for name in ("vision_tokens", "resident_tokens"):
        if not isinstance(line[name], list) or not line[name]:
            raise TypeError(f"{name} must have one number per layer, got {line[name]!r:.40}")
    score = line["scores"][metric]
    if not isinstance(score, int | float):
        raise TypeError(f"the score must be a number, got {score!r:.40}")
    return {
        "score": score,
        **{name: line[name] for name in ("task", "doc_id", "question", "target", "answer")},
        **{name: line.get(name) for name in ("type", "image", "seconds", "prompt_tokens")},
        **{name: line[name] for name in ("vision_tokens", "resident_tokens")},
        "confidence": _confidence(line.get("logprobs")),
        **_control_scores(line.get("controls", {}), metric),
    }


def plain_texts(samples: pd.DataFrame, column: str) -> pd.Series:
    """Texts of a column in lower case, without spaces around them."""
    return pd.Series(samples[column]).astype(str).str.strip().str.lower()


def _confidence(logprobs: list[float] | None) -> float:
    """Probability of the whole answer, with its end token; NaN if the run did not record it."""
    return nan if logprobs is None else exp(fsum(logprobs))


def _control_scores(controls: dict[str, Any], metric: str) -> dict[str, float]:
    """Mean score of each kind of control on one sample, over its seeds; NaN without it."""
    means = {}
    for kind, name in CONTROL_NAMES.items():
        scores = [seed["scores"][metric] for seed in controls.get(kind, ())]
        means[name] = sum(scores) / len(scores) if scores else nan
    return means
