"""The record of a run: its samples in numbers, and everything that says how they came about.

Imports neither torch nor lmms-eval: a cell whose budget cannot be had is recorded without them.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mustdrop.runs.folder import RECALL, SCHEMA, now
from mustdrop.runs.writer import RunWriter


def record_of(
    config: Mapping[str, Any],
    run: RunWriter,
    metrics: Mapping[str, float],
    available: int,
    hardware: Mapping[str, Any],
) -> dict[str, Any]:
    """The record of a cell that ran to its end.

    Args:
        config: Resolved.
        run: With all its samples.
        metrics: lmms-eval's own, over these samples.
        available: Samples that the benchmark has.
        hardware: What the last of them were made on.
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
        **{name: _present(line.get(name) for line in samples) for name in RECALL},
        "vision_tokens": _column_means([line["vision_tokens"] for line in samples]),
        "resident_tokens": _column_means([line["resident_tokens"] for line in samples]),
        **_means([{name: line[name] for name in costs} for line in samples]),
        "flops_ratio": spent / whole,
        **_beside(samples),
        "hardware": dict(hardware),
        "seconds": sum(line["seconds"] for line in samples),
        "timing": run.timing(),
        "finished": now(),
        "floor": None,
    }


def floor_record(config: Mapping[str, Any], run: RunWriter, floor: float) -> dict[str, Any]:
    """The record of a cell whose budget cannot be had: finished, and empty."""
    return {
        **_head(config, run),
        "n": 0,
        "available": None,
        "metrics": {},
        **dict.fromkeys(("counts", "vision_tokens", "resident_tokens", "flops_ratio", "hardware")),
        **dict.fromkeys(RECALL),
        "seconds": 0.0,
        "timing": None,
        "finished": now(),
        "floor": floor,
    }


def _head(config: Mapping[str, Any], run: RunWriter) -> dict[str, Any]:
    """What a record says of its run, whatever came out."""
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


def _beside(samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the controls came to: an entry a kind, in it one a seed. Empty where there were none.

    Their scores are means over the samples that have one, not lmms-eval's own aggregates.
    """
    if "controls" not in samples[0]:
        return {}
    told = {
        kind: [
            {
                "seed": arm["seed"],
                "scores": _score_means([line["controls"][kind][place] for line in samples]),
                "counts": _means([line["controls"][kind][place]["counts"] for line in samples]),
            }
            for place, arm in enumerate(arms)
        ]
        for kind, arms in samples[0]["controls"].items()
    }
    return {"controls": told, "controls_seconds": sum(line["controls_seconds"] for line in samples)}


def _score_means(answers: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Mean of each score over the answers that have it."""
    names = dict.fromkeys(name for one in answers for name in one["scores"])
    found = {name: _present(one["scores"].get(name) for one in answers) for name in names}
    return {name: value for name, value in found.items() if value is not None}


def _present(values: Iterable[float | None]) -> float | None:
    """Mean of the values that there are; None if there is none."""
    found = [value for value in values if value is not None]
    return sum(found) / len(found) if found else None


def _means(rows: Sequence[Mapping[str, float | int | None]]) -> dict[str, float | None]:
    """Mean of each column; None where a row has none."""
    out: dict[str, float | None] = {}
    for name in rows[0]:
        values = [value for row in rows if (value := row[name]) is not None]
        out[name] = sum(values) / len(values) if len(values) == len(rows) else None
    return out


def _column_means(rows: Sequence[Sequence[int]]) -> list[float]:
    return [sum(column) / len(rows) for column in zip(*rows, strict=True)]
