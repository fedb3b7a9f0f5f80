"""The finished cells of a results folder, read and checked. The one file that reads runs.

A cell is one model x method x budget x benchmark: a record with its samples, which are indexed by
(task, doc_id), as comparisons pair on that. Knows nothing about tables or figures.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isfinite, nan
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.records.left_out import leave_out
from analysis.records.variants import variants
from mustdrop.runs.folder import MATCH as MATCH
from mustdrop.runs.folder import SCHEMA, TornFile, read_record, read_samples
from mustdrop.runs.folder import agree as agree

COUNTS = ("nominal", "paper_average", "executed_average", "resident")
# What ran beside a method on the same batches, as records name it: in tables.
CONTROL_NAMES = {"schedule_random": "schedule", "flat_random": "flat", "flat_grid": "grid"}
# Fields that every record has.
FIELDS = (
    "experiment", "model", "benchmark", "method", "preset", "budget", "key", "config", "n", "floor",
    "metric", "counts", "flops_ratio", "kv_bytes", "vanilla_kv_bytes", "fingerprint", "versions",
    "hardware",
)  # fmt: skip


class NothingLeft(ValueError):
    """No run of a folder can be read."""


@dataclass(frozen=True, eq=False)
class RunResult:
    """One finished run.

    Attributes:
        record: Its record.json.
        metric: The score in ``samples``; None for a cell whose budget could not be reached.
        samples: One row a sample, indexed by (task, doc_id): score, type, question, target, answer,
            image (names the picture; None in old runs), seconds, and the lists vision_tokens and
            resident_tokens with a number a layer. The scores of what ran beside it, seeds
            averaged: schedule, flat, grid; NaN without.
        variant: What tells it from other runs of its method at its budget.
    """

    record: dict[str, Any]
    metric: str | None
    samples: pd.DataFrame
    variant: str = ""

    def __getitem__(self, name: str) -> Any:
        """A field of the record."""
        return self.record[name]

    @property
    def group(self) -> tuple[str, str, str]:
        """What must agree for two cells to be compared: experiment, model and benchmark."""
        return self["experiment"], self["model"], self["benchmark"]

    @property
    def budget(self) -> float | None:
        """The executed average that was asked for; None where none was."""
        chosen = self["config"].get("budget")
        if chosen:
            return float(chosen["tokens"])
        found = re.fullmatch(r"t?(\d+(?:\.\d+)?)", str(self["budget"]))
        return float(found[1]) if found else None

    @property
    def executed(self) -> float:
        """Vision tokens that entered a layer, mean over layers and samples."""
        return float(self["counts"]["executed_average"])

    @property
    def image(self) -> str | None:
        """The control on the input image (blank, wrong, ...); None: the image as it is."""
        control = self["config"].get("image")
        return str(control["name"]) if control else None

    @property
    def setup(self) -> str:
        """Code and machine; timings of two setups do not compare."""
        parts = [self[name] for name in ("fingerprint", "versions", "hardware")]
        return " · ".join(text for part in parts if (text := _told(part)))


def load(root: Path | str, metric: str | None = None) -> list[RunResult]:
    """All finished cells under a folder, vanilla first, then by budget and method.

    Args:
        root: ``outputs`` or any folder in it.
        metric: The score to read; by default each benchmark's own.

    Raises:
        FileNotFoundError: If the folder is missing.
        ValueError: If nothing under it is finished, no run of it can be read, or a sample has no
            such score.

    Warns:
        LeftOut: Of each run that cannot be read (a torn record or line, fewer samples than its
            record says, a sample that occurs twice), which is left out.
    """
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(f"no results folder {root}: give the folder that a run wrote to")
    folders = [path.parent for path in sorted(root.rglob("record.json"))]
    if not folders:
        raise ValueError(f"no finished run (record.json) under {root}")
    return load_runs(folders, metric)


def load_runs(folders: Sequence[Path], metric: str | None = None) -> list[RunResult]:
    """The finished cells among these runs, as :func:`load` gives them; none where none is.

    Raises:
        ValueError: See :func:`load`.

    Warns:
        LeftOut: See :func:`load`.
    """
    cells, reasons = [], []
    for folder in folders:
        try:
            record = read_record(folder)
            if record is not None:
                cells.append(_cell({**record, "folder": str(folder)}, metric))
        except TornFile as error:
            reasons.append(error)
    if reasons and not cells:
        more = f" (and {len(reasons) - 1} more)" if len(reasons) > 1 else ""
        raise NothingLeft(f"no run is left, all are torn: {reasons[0]}{more}")
    for reason in reasons:
        leave_out(reason)
    return sorted(_tell_apart(cells), key=_order)


def groups(cells: Sequence[RunResult]) -> dict[tuple[str, str, str], list[RunResult]]:
    """Cells by experiment, model and benchmark."""
    out: dict[tuple[str, str, str], list[RunResult]] = {}
    for cell in cells:
        out.setdefault(cell.group, []).append(cell)
    return out


def _cell(record: dict[str, Any], metric: str | None) -> RunResult:
    where = Path(record["folder"])
    if record.get("schema") != SCHEMA:
        raise TornFile(
            where / "record.json",
            f"expected a record of schema {SCHEMA}, got {record.get('schema')}",
        )
    _check(record, where)
    if record["floor"] is not None and not record["n"]:
        return RunResult(record, None, pd.DataFrame())
    # more than n: the run is being extended, and its record tells of the first n
    lines = read_samples(where)[: record["n"]]
    path = where / "samples.jsonl"
    if not lines or len(lines) < record["n"]:
        raise TornFile(path, f"{record['n']} samples are on record, {len(lines)} are there")
    chosen = metric or record["metric"]
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            if chosen not in line["scores"]:
                known, doc = sorted(line["scores"]), line["doc_id"]
                reason = f"sample {doc} has no score {chosen!r}, it has {known}"
                if metric is None:
                    raise TornFile(path, reason, number)
                raise ValueError(f"{where}: {reason}")
            rows.append(_row(line, chosen))
        except (AttributeError, KeyError, TypeError) as error:
            raise TornFile(path, f"no whole sample ({error!r})", number) from error
        if not isfinite(rows[-1]["score"]):
            raise TornFile(path, f"the score is {rows[-1]['score']}", number)
    frame = pd.DataFrame(rows).set_index(["task", "doc_id"])
    if frame.index.has_duplicates:
        twice = frame.index.duplicated()
        which = frame.index[twice][0]
        reason = f"sample {which[1]} of {which[0]} occurs twice"
        raise TornFile(path, reason, int(twice.argmax()) + 1)
    return RunResult(record, chosen, frame.astype({"score": float}).sort_index())


def _check(record: dict[str, Any], where: Path) -> None:
    """Refuse a record that lacks what every table needs."""
    path = where / "record.json"
    if lacking := [name for name in FIELDS if name not in record]:
        raise TornFile(path, f"the record lacks {', '.join(lacking)}")
    if not isinstance(record["n"], int) or not isinstance(record["config"], dict):
        raise TornFile(path, "the record is damaged: n must be a count, config a mapping")
    counts = record["counts"]
    if record["n"] and not (isinstance(counts, dict) and set(COUNTS) <= set(counts)):
        raise TornFile(path, f"the record lacks counts: {', '.join(COUNTS)}")


def _row(line: dict[str, Any], metric: str) -> dict[str, Any]:
    """What tables and figures need of one sample."""
    for name in ("vision_tokens", "resident_tokens"):
        if not isinstance(line[name], list) or not line[name]:
            raise TypeError(f"{name} must be a list with a number a layer, got {line[name]!r:.40}")
    score = line["scores"][metric]
    if not isinstance(score, int | float):
        raise TypeError(f"the score must be a number, got {score!r:.40}")
    return {
        "score": score,
        **{name: line[name] for name in ("task", "doc_id", "question", "target", "answer")},
        **{name: line.get(name) for name in ("type", "image", "seconds")},
        **{name: line[name] for name in ("vision_tokens", "resident_tokens")},
        **_beside(line.get("controls", {}), metric),
    }


def _beside(controls: dict[str, Any], metric: str) -> dict[str, float]:
    """Of one sample, the mean score of each kind of control over its seeds."""
    found = {}
    for kind, name in CONTROL_NAMES.items():
        scores = [arm["scores"][metric] for arm in controls.get(kind, ())]
        found[name] = sum(scores) / len(scores) if scores else nan
    return found


def _tell_apart(cells: Sequence[RunResult]) -> list[RunResult]:
    names: dict[tuple, list[RunResult]] = {}
    for cell in cells:
        named = cell.group, cell["method"], cell["budget"], cell.image
        names.setdefault(named, []).append(cell)
    return [
        replace(cell, variant=variant)
        for same in names.values()
        for cell, variant in zip(same, variants([c["config"] for c in same]), strict=True)
    ]


def _order(cell: RunResult) -> tuple:
    plain = cell["method"] == "vanilla" and cell.image is None
    rank = (
        not plain,
        -(cell.budget or 0.0),
        cell["method"],
        cell["budget"],
        cell.image or "",
        cell.variant,
    )
    return *cell.group, *rank, cell["key"]


def _told(part: Any) -> str:
    """A record's field as text: words as they are, mappings by their entries in order."""
    if isinstance(part, dict):
        return ", ".join(f"{name} {part[name]}" for name in sorted(part) if part[name] is not None)
    return "" if part is None else str(part)
