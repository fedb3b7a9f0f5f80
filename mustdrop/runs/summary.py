"""The record of a run: means over its samples, and all that is needed to reproduce them.

Imports neither torch nor lmms-eval: a run whose budget is out of reach is recorded without them.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mustdrop.budget import Floor
from mustdrop.runs.folder import RECALL, SCHEMA, now
from mustdrop.runs.status import unreadable_entry
from mustdrop.runs.writer import RunWriter

# Entries of a record that need samples; None in the record of a run that has none.
MEASURED = (
    "counts", "slots", "vision_tokens", "resident_tokens", "flops_ratio", "kv_bytes",
    "vanilla_kv_bytes", "hardware",
)  # fmt: skip
# Times of a sample. ``seconds`` is that of the processor and the model; waiting comes on top of it.
SECONDS = ("processor_seconds", "model_seconds", "waiting_seconds")


def record_of(
    config: Mapping[str, Any],
    run: RunWriter,
    metrics: Mapping[str, float],
    available: int,
    hardware: Mapping[str, Any],
) -> dict[str, Any]:
    """Record of a run that is complete.

    Args:
        config: Resolved config.
        run: Run with all its samples.
        metrics: lmms-eval's metrics over these samples.
        available: Number of samples that the benchmark has.
        hardware: Hardware that answered the last samples.
    """
    samples = list(run.samples.values())
    spent = sum(line["encoder_macs"] + line["prefill_macs"] for line in samples)
    whole = sum(line["vanilla_encoder_macs"] + line["vanilla_macs"] for line in samples)
    costs = [name for name in samples[0] if name.endswith(("_macs", "kv_bytes"))]
    return {
        **_head(config, run),
        "n": len(samples),
        "available": available,
        "metrics": dict(metrics),
        "counts": _means([line["counts"] for line in samples]),
        "slots": _means([line["slots"] for line in samples]),
        **{name: _mean(line.get(name) for line in samples) for name in RECALL},
        "vision_tokens": _column_means([line["vision_tokens"] for line in samples]),
        "resident_tokens": _column_means([line["resident_tokens"] for line in samples]),
        **_means([{name: line[name] for name in costs} for line in samples]),
        "flops_ratio": spent / whole,
        **_control_results(samples),
        "hardware": dict(hardware),
        "seconds": sum(line["seconds"] for line in samples),
        **{name: _sum(line.get(name) for line in samples) for name in SECONDS},
        "timing": run.timing(),
        "finished": now(),
        "floor": None,
        **unreadable_entry(run.unreadable),
        **_reach(samples),
    }


def floor_record(config: Mapping[str, Any], run: RunWriter, floor: Floor) -> dict[str, Any]:
    """Record of a run whose budget is below the least reachable average: finished, no samples."""
    return {
        **_head(config, run),
        "n": 0,
        "available": None,
        "metrics": {},
        **dict.fromkeys(MEASURED),
        **dict.fromkeys(RECALL),
        "seconds": 0.0,
        **dict.fromkeys(SECONDS, 0.0),
        "timing": None,
        "finished": now(),
        "floor": floor,
    }


def _head(config: Mapping[str, Any], run: RunWriter) -> dict[str, Any]:
    """Entries of a record that do not depend on the samples."""
    budget = config["budget"]
    return {
        "schema": SCHEMA,
        "experiment": config["experiment"],
        "model": config["model"]["name"],
        "method": config["method"]["name"],
        "preset": f"method/{config['method']['name']}.yaml",
        "budget": budget["name"] if budget else "none",
        "benchmark": config["benchmark"]["name"],
        "metric": config["benchmark"]["metric"],
        "key": run.folder.name.rpartition("-")[2],
        "limit": config["benchmark"]["limit"],
        "seed": config["seed"],
        "started": run.started,
        "fingerprint": run.mark.id,
        "versions": dict(run.mark.versions),
        "config": dict(config),
    }


def _reach(samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Share of the prompts whose budget is out of reach, with the mean limit of these prompts.

    Empty if the budget is in reach for all prompts.
    """
    reach = {}
    for name in ("least_average", "most_average"):
        limits = [line[name] for line in samples if name in line]
        if limits:
            share = len(limits) / len(samples)
            reach[name] = {"tokens": sum(limits) / len(limits), "share_of_prompts": share}
    return {"reach": reach} if reach else {}


def _control_results(samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Control results: a list with one entry per seed for each kind; empty without controls.

    Scores are means over the samples that have one, not lmms-eval's aggregates.
    """
    if "controls" not in samples[0]:
        return {}
    results = {
        kind: [
            {
                "seed": control["seed"],
                "scores": _score_means([line["controls"][kind][index] for line in samples]),
                "counts": _means([line["controls"][kind][index]["counts"] for line in samples]),
            }
            for index, control in enumerate(controls)
        ]
        for kind, controls in samples[0]["controls"].items()
    }
    seconds = sum(line["controls_seconds"] for line in samples)
    return {"controls": results, "controls_seconds": seconds}


def _score_means(answers: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Mean of each score over the answers that have it."""
    names = dict.fromkeys(name for answer in answers for name in answer["scores"])
    means = {name: _mean(answer["scores"].get(name) for answer in answers) for name in names}
    return {name: value for name, value in means.items() if value is not None}


def _mean(values: Iterable[float | None]) -> float | None:
    """Mean of the values that are not None; None if all are."""
    numbers = [value for value in values if value is not None]
    return sum(numbers) / len(numbers) if numbers else None


def _sum(values: Iterable[float | None]) -> float | None:
    """Sum of the values; None if one of them is None."""
    numbers = list(values)
    known = [value for value in numbers if value is not None]
    return sum(known) if len(known) == len(numbers) else None


def _means(rows: Sequence[Mapping[str, float | int | None]]) -> dict[str, float | None]:
    """Mean of each column; None if a row has no value."""
    means: dict[str, float | None] = {}
    for name in rows[0]:
        values = [value for row in rows if (value := row[name]) is not None]
        means[name] = sum(values) / len(values) if len(values) == len(rows) else None
    return means


def _column_means(rows: Sequence[Sequence[int]]) -> list[float]:
    return [sum(column) / len(rows) for column in zip(*rows, strict=True)]
