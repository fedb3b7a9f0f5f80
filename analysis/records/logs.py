"""Sample logs of lmms-eval, of any model and anyone's run, as scores that pair by document.

Reads ``<date>_samples_<task>.jsonl`` as ``--log_samples`` writes it: a line a document, a metric
per key, a number or a mapping with a number under ``score``. lmms-eval before 0.7 keeps the
document in the line; 0.7 leaves it out, so what names a document's image comes from there, from
the metric's mapping (MME's ``question_id`` is its picture), or from a table of the documents.
Knows no run folders of ours, and compares nothing.
"""

import json
import re
from collections.abc import Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import Any

import pandas as pd

# What a line says beside its metrics.
PLAIN = {
    "doc_id", "doc", "doc_hash", "prompt_hash", "target_hash", "target", "arguments", "input",
    "resps", "filtered_resps", "token_counts", "input_media", "submission",
}  # fmt: skip
# Aggregates that are no mean over documents, though a number stands by each.
NO_MEAN = re.compile(r"f1|precision|recall|yes_ratio|bleu|matthews|mcc")
READERS = {
    ".jsonl": lambda path: pd.read_json(path, lines=True),
    ".json": pd.read_json,
    ".csv": pd.read_csv,
    ".parquet": pd.read_parquet,
}


def read_log(
    path: Path | str,
    metric: str | None = None,
    cluster: str | None = None,
    documents: Path | str | None = None,
) -> pd.DataFrame:
    """The scores of one task's log, indexed by (task, doc_id) as the samples of a run are.

    Args:
        path: The log.
        metric: Which score; may be left out where there is only one.
        cluster: The field that names a document's image, such as ``image_id``.
        documents: A table (jsonl, json, csv, parquet) with that field whose row number is the
            document's id, for logs that leave documents out.

    Returns:
        score, image (None without ``cluster``), prompt, target and answer as logged. Not its
        ``doc_hash``, which is one and the same for all, or differs with each run. A document
        without the metric is left out, as aggregation leaves it out (MME's two halves).

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If it is no such log, has no such metric, or one that is no mean over documents,
            a document occurs twice, or the field is nowhere.
    """
    path = Path(path)
    lines = _lines(path)
    chosen = _metric(path, lines, metric)
    scored = [line for line in lines if line.get(chosen) is not None]
    images = _images(path, scored, chosen, cluster, documents)
    frame = pd.DataFrame(
        {
            "task": _task(path),
            "doc_id": line["doc_id"],
            "score": _score(path, line, chosen),
            "image": image,
            "prompt": line.get("input"),
            "target": line.get("target"),
            "answer": line.get("filtered_resps"),
        }
        for line, image in zip(scored, images, strict=True)
    ).set_index(["task", "doc_id"])
    if frame.index.has_duplicates:
        twice = frame.index[frame.index.duplicated()][0][1]
        raise ValueError(f"{path}: document {twice} occurs twice: one run and one filter, please")
    return frame.sort_index()


def metrics_of(lines: Sequence[Mapping[str, Any]]) -> list[str]:
    """The metrics of a log that have a number per document whose mean means something."""
    named = dict.fromkeys(name for line in lines for name in line if name not in PLAIN)
    return [
        name
        for name in named
        if not NO_MEAN.search(name.lower())
        and all(_number(line[name]) is not None for line in lines if line.get(name) is not None)
    ]


def _lines(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        raise FileNotFoundError(f"no sample log {path}")
    lines = []
    # not str.splitlines: lmms-eval writes U+2028, U+2029 and U+0085 as they are, inside of a line
    for number, text in enumerate(path.read_bytes().split(b"\n"), 1):
        try:
            if text.strip():
                lines.append(json.loads(text))
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise ValueError(
                f"{path}, line {number}: no JSON-lines file as --log_samples writes: {error}"
            ) from error
    if not lines or not all(isinstance(line, dict) and "doc_id" in line for line in lines):
        raise ValueError(f"{path}: expected lines with a doc_id, as --log_samples writes them")
    return lines


def _metric(path: Path, lines: Sequence[Mapping[str, Any]], metric: str | None) -> str:
    known = metrics_of(lines)
    if metric is None:
        if len(known) != 1:
            raise ValueError(f"{path}: name a metric, one of {known}")
        return known[0]
    if metric in known:
        return metric
    if not any(metric in line for line in lines):
        raise ValueError(f"{path}: expected a metric of {known}, got {metric!r}")
    why = (
        "is no mean over documents" if NO_MEAN.search(metric.lower()) else "has no number for each"
    )
    raise ValueError(f"{path}: {metric!r} {why}, so documents cannot be paired on it: use {known}")


def _number(value: Any) -> float | None:
    """A document's score: a number, or the ``score`` of a mapping."""
    found = value.get("score") if isinstance(value, Mapping) else value
    return float(found) if isinstance(found, int | float) else None


def _score(path: Path, line: Mapping[str, Any], metric: str) -> float:
    score = _number(line[metric])
    if score is None or not isfinite(score):
        raise ValueError(f"{path}: document {line['doc_id']} has {metric} {line[metric]!r}")
    return score


def _images(
    path: Path,
    lines: Sequence[Mapping[str, Any]],
    metric: str,
    field: str | None,
    documents: Path | str | None,
) -> list[str | None]:
    if field is None:
        return [None] * len(lines)
    if documents is not None:
        column = _column(Path(documents), field)
        most = max(int(line["doc_id"]) for line in lines)
        if most >= len(column):
            raise ValueError(f"{documents} has {len(column)} rows, and {path} document {most}")
        return [str(column[int(line["doc_id"])]) for line in lines]
    # the document first, where the log has it; then what the metric says of it
    places = [[line.get("doc"), line[metric], line] for line in lines]
    found = [_first(inside, field) for inside in places]
    if None in found:
        told = [name for each in places[0][:2] if isinstance(each, Mapping) for name in each]
        raise ValueError(
            f"{path}: no field {field!r} names the image of every document; there are "
            f"{told or 'none'}. lmms-eval 0.7 logs no documents: give a table of them (--documents)"
        )
    return found


def _first(places: Sequence[Any], field: str) -> str | None:
    values = [place[field] for place in places if isinstance(place, Mapping) and field in place]
    return str(values[0]) if values else None


def _column(path: Path, field: str) -> list[Any]:
    if not path.is_file():
        raise FileNotFoundError(f"no table of documents {path}")
    if path.suffix not in READERS:
        raise ValueError(f"documents must be one of {list(READERS)}, got {path}")
    table = READERS[path.suffix](path)
    if field not in table:
        raise ValueError(f"{path}: expected a column of {list(table.columns)}, got {field!r}")
    return list(table[field])


def _task(path: Path) -> str:
    """``gqa`` of ``20260101_120000_samples_gqa.jsonl``."""
    found = re.search(r"(?:^|_)samples_(.+)$", path.stem)
    return found[1] if found else path.stem
