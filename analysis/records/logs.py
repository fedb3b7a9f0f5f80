"""Read sample logs of lmms-eval, of any model, as scores that are paired by document.

A log ``<date>_samples_<task>.jsonl``, written by ``--log_samples``, has one line per document and
one key per metric, whose value is a number or a mapping with a number under ``score``. lmms-eval
before 0.7 keeps the document in the line, and 0.7 leaves it out. The name of a document's image
therefore comes from the document, from the mapping of the metric (MME's ``question_id`` is its
picture), or from a table of the documents. Knows nothing about our run folders or comparisons.

The score ``choice_probability`` is in no log: it follows from the losses of the choices, which a
log of a multiple-choice task has. It is the softmax of the mean log-likelihoods of the choices'
tokens, which lmms-eval compares, at the right choice.
"""

import json
import re
from collections.abc import Mapping, Sequence
from math import exp, isfinite
from pathlib import Path
from typing import Any

import pandas as pd

# Keys of a line that are not metrics.
PLAIN = {
    "doc_id", "doc", "doc_hash", "prompt_hash", "target_hash", "target", "arguments", "input",
    "resps", "filtered_resps", "token_counts", "input_media", "submission",
}  # fmt: skip
# Metrics whose aggregate is not a mean over documents, although each document has a number.
NO_MEAN = re.compile(r"f1|precision|recall|yes_ratio|bleu|matthews|mcc")
CHOICE_PROBABILITY = "choice_probability"
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
    """Read the scores of one task's log, indexed by (task, doc_id) like the samples of a run.

    Args:
        path: Log file.
        metric: Name of the score; optional if the log has only one; or ``choice_probability``.
        cluster: Name of the field that identifies a document's image, such as ``image_id``.
        documents: Table (jsonl, json, csv, parquet) with that field, whose row number is the id of
            the document; for logs without documents.

    Returns:
        Table of score, image (None without ``cluster``), prompt, target and answer as logged. The
        ``doc_hash`` is not used: it is the same for all documents, or differs with each run.
        Documents without the metric are left out, as aggregation does (MME's two halves).

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If the file is not such a log, if the metric is missing or is not a mean over
            documents, if a document occurs twice, or if the field is missing.
    """
    path = Path(path)
    lines = _lines(path)
    chosen = _metric(path, lines, metric)
    if chosen == CHOICE_PROBABILITY:
        lines = [{**line, chosen: _choice_probability(path, line)} for line in lines]
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
        repeated = frame.index[frame.index.duplicated()][0][1]
        raise ValueError(
            f"{path}: document {repeated} occurs twice: expected the log of one run and one filter"
        )
    return frame.sort_index()


def metrics_of(lines: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names of the metrics that have a number per document and are a mean over documents."""
    keys = dict.fromkeys(name for line in lines for name in line if name not in PLAIN)
    return [
        name
        for name in keys
        if not NO_MEAN.search(name.lower())
        and all(_number(line[name]) is not None for line in lines if line.get(name) is not None)
    ]


def _lines(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        raise FileNotFoundError(f"no sample log {path}")
    lines = []
    # str.splitlines would split at U+2028, U+2029 and U+0085, which lmms-eval writes inside a line.
    for number, text in enumerate(path.read_bytes().split(b"\n"), 1):
        try:
            if text.strip():
                lines.append(json.loads(text))
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise ValueError(
                f"{path}, line {number}: expected JSON lines as --log_samples writes them: {error}"
            ) from error
    if not lines or not all(isinstance(line, dict) and "doc_id" in line for line in lines):
        raise ValueError(f"{path}: expected lines with a doc_id, as --log_samples writes them")
    return lines


def _metric(path: Path, lines: Sequence[Mapping[str, Any]], metric: str | None) -> str:
    known = metrics_of(lines)
    if metric is None:
        if len(known) != 1:
            raise ValueError(f"{path}: expected a metric, one of {known}")
        return known[0]
    if metric in (*known, CHOICE_PROBABILITY):
        return metric
    if not any(metric in line for line in lines):
        raise ValueError(f"{path}: expected a metric of {known}, got {metric!r}")
    reason = (
        "is not a mean over documents"
        if NO_MEAN.search(metric.lower())
        else "has no number for each document"
    )
    raise ValueError(f"{path}: {metric!r} {reason}, so it cannot be paired: use one of {known}")


def _choice_probability(path: Path, line: Mapping[str, Any]) -> float:
    """Probability of the right choice among the choices of a document."""
    logged, target = line.get("filtered_resps"), str(line.get("target"))
    choices = logged if isinstance(logged, list) else []
    pairs = all(isinstance(choice, list) and len(choice) == 2 for choice in choices)
    if not pairs or not target.isdigit() or int(target) >= len(choices):
        raise ValueError(
            f"{path}: {CHOICE_PROBABILITY} needs the loss of each choice and the index of the "
            f"right one, as a task of multiple choice logs them; document {line['doc_id']} has "
            f"{logged!s:.60} and the target {target:.20}"
        )
    losses = [float(loss) for loss, _ in choices]
    weights = [exp(min(losses) - loss) for loss in losses]
    return weights[int(target)] / sum(weights)


def _number(value: Any) -> float | None:
    """Score of a document: a number, or the ``score`` of a mapping; None if it is not a number."""
    score = value.get("score") if isinstance(value, Mapping) else value
    return float(score) if isinstance(score, int | float) else None


def _score(path: Path, line: Mapping[str, Any], metric: str) -> float:
    score = _number(line[metric])
    if score is None or not isfinite(score):
        raise ValueError(
            f"{path}: expected a finite {metric} for document {line['doc_id']}, "
            f"got {line[metric]!r}"
        )
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
        largest = max(int(line["doc_id"]) for line in lines)
        if largest >= len(column):
            raise ValueError(
                f"{documents} has {len(column)} rows, but {path} has document {largest}"
            )
        return [str(column[int(line["doc_id"])]) for line in lines]
    # The document has precedence, if the log contains it; then the mapping of the metric.
    sources = [[line.get("doc"), line[metric], line] for line in lines]
    images = [_first(mappings, field) for mappings in sources]
    if None in images:
        known = [
            name for source in sources[0][:2] if isinstance(source, Mapping) for name in source
        ]
        raise ValueError(
            f"{path}: expected a field {field!r} in every document, got fields {known or 'none'}. "
            "lmms-eval 0.7 logs no documents: give a table of them (--documents)"
        )
    return images


def _first(mappings: Sequence[Any], field: str) -> str | None:
    """Value of the field in the first of the mappings that has it."""
    values = [
        source[field] for source in mappings if isinstance(source, Mapping) and field in source
    ]
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
    """Task of a log: ``gqa`` for ``20260101_120000_samples_gqa.jsonl``."""
    match = re.search(r"(?:^|_)samples_(.+)$", path.stem)
    return match[1] if match else path.stem
