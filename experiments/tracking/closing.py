"""Final report of a run for a tracker: its numbers, a table of samples, what was dropped.

Pictures are read from the benchmark's documents, only those that are shown; if they cannot be
read, the report is made without them. Knows no tracker.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.tracking.documents import RunDocuments
from experiments.tracking.drawings import drawn_samples
from experiments.tracking.judged import COLUMNS as COLUMNS_OF_JUDGES
from experiments.tracking.judged import judgement_numbers, judgement_rows
from experiments.tracking.profiled import COLUMNS as COLUMNS_OF_PROFILE
from experiments.tracking.profiled import STATE as PROFILED
from experiments.tracking.profiled import profile_numbers, profile_rows
from mustdrop.runs.folder import EFFICIENCY, read_efficiency, read_record, read_samples
from mustdrop.runs.judgements import judgement_files, read_judgements
from mustdrop.runs.status import SETTLED
from mustdrop.tracking.service import Closing, Tracker

THUMBNAIL = 256  # pixels, the longer side
COLUMNS = (
    "doc_id", "image", "question", "answer", "prediction", "correct", "executed_average",
    "resident", "paper_average", "nominal", "seconds",
)  # fmt: skip


def closing(
    folder: Path, config: Mapping[str, Any], status: Mapping[str, Any], tracker: Tracker
) -> Closing:
    """Make the final report; for an unfinished run, its state, sample count and profile."""
    profile = read_efficiency(folder)
    numbers: dict[str, Any] = {} if profile is None else profile_numbers(profile)
    tables: dict[str, Any] = {}
    files = []
    if profile is not None:
        tables["efficiency"] = (COLUMNS_OF_PROFILE, profile_rows(profile))
        files = [folder / EFFICIENCY]
    state = status.get("state", "running" if profile is None else PROFILED)
    record = read_record(folder) if state in SETTLED else None
    if record is None:
        known = {name: status[name] for name in ("n", "error") if status.get(name) is not None}
        return Closing(state, {**known, **numbers}, tables, files)
    samples, documents = read_samples(folder), RunDocuments(config)
    if samples:
        metric = config["benchmark"]["metric"]
        if tracker.table_rows:
            tables["samples"] = (COLUMNS, rows(samples[: tracker.table_rows], metric, documents))
        tables["tokens_per_layer"] = (("layer", "entering", "resident"), layers(record))
        if judges := read_judgements(folder):
            numbers |= judgement_numbers(judges, samples)
            first = samples[: tracker.table_rows]
            tables["judgements"] = (COLUMNS_OF_JUDGES, judgement_rows(judges, first, metric))
            files += judgement_files(folder)
    files += [folder / name for name in ("record.json", "config.yaml", "status.json")]
    tables |= drawn_samples(folder, config, samples, documents, tracker.overlays)
    return Closing(state, {**summary(record), **numbers}, tables, files)


def summary(record: Mapping[str, Any]) -> dict[str, Any]:
    """Collect a record's numbers by name, without those that are None."""
    names = ("n", "available", "floor", "flops_ratio", "kv_bytes", "target_recall", "seconds")
    numbers = {
        **{f"final/{name}": value for name, value in record["metrics"].items()},
        **{f"final/{name}": value for name, value in (record["counts"] or {}).items()},
        **{f"final/{name}": record.get(name) for name in names},
    }
    return {name: value for name, value in numbers.items() if value is not None}


def rows(
    samples: Sequence[Mapping[str, Any]], metric: str, documents: RunDocuments
) -> list[list[Any]]:
    """Make the rows of the table of samples, in the order of :data:`COLUMNS`."""
    out = []
    for line in samples:
        image = documents.picture(line["doc_id"])
        if image is not None:
            image.thumbnail((THUMBNAIL, THUMBNAIL))
        target = line["target"]
        counts = (line["counts"].get(name) for name in COLUMNS[6:10])
        out.append(
            [
                line["doc_id"],
                image,
                line["question"],
                target if isinstance(target, str) else json.dumps(target),
                line["answer"],
                line["scores"].get(metric),
                *counts,
                line["seconds"],
            ]
        )
    return out


def layers(record: Mapping[str, Any]) -> list[list[float]]:
    """List, for each layer, the mean numbers of vision tokens that enter and that stay cached."""
    both = zip(record["vision_tokens"], record["resident_tokens"], strict=True)
    return [[layer, entering, resident] for layer, (entering, resident) in enumerate(both)]
