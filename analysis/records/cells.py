"""The finished cells of a results folder, read and checked. The one file that reads runs.

A cell is one model x method x budget x benchmark: a record with its samples, which are indexed by
(task, doc_id), as comparisons pair on that. Knows nothing about tables or figures.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import nan
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.records.variants import variants
from mustdrop.harness.record import MATCH as MATCH
from mustdrop.harness.record import SCHEMA, read_record, read_records, read_samples
from mustdrop.harness.record import agree as agree

COUNTS = ("nominal", "paper_average", "executed_average", "resident")
# What ran beside a method on the same batches, as records name it: in tables.
BESIDE = {"schedule_random": "schedule", "flat_random": "flat", "flat_grid": "grid"}


@dataclass(frozen=True, eq=False)
class Cell:
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


def load(root: Path | str, metric: str | None = None) -> list[Cell]:
    """All finished cells under a folder, vanilla first, then by budget and method.

    Args:
        root: ``outputs`` or any folder in it.
        metric: The score to read; by default each benchmark's own.

    Raises:
        FileNotFoundError: If the folder is missing.
        ValueError: If nothing under it is finished, a record cannot be read, a cell's samples are
            fewer than its record says or occur twice, or one has no such score.
    """
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(f"no results folder {root}: give the folder that a run wrote to")
    try:
        records = read_records(root)
    except json.JSONDecodeError as error:
        raise ValueError(f"a record.json under {root} is torn: {error}") from error
    if not records:
        raise ValueError(f"no finished run (record.json) under {root}")
    return _cells(records, metric)


def load_runs(folders: Sequence[Path], metric: str | None = None) -> list[Cell]:
    """The finished cells among these runs, as :func:`load` gives them; none where none is.

    Raises:
        ValueError: See :func:`load`.
    """
    found = {folder: read_record(folder) for folder in folders}
    told = [{**record, "folder": str(folder)} for folder, record in found.items() if record]
    return _cells(told, metric)


def groups(cells: Sequence[Cell]) -> dict[tuple[str, str, str], list[Cell]]:
    """Cells by experiment, model and benchmark."""
    out: dict[tuple[str, str, str], list[Cell]] = {}
    for cell in cells:
        out.setdefault(cell.group, []).append(cell)
    return out


def _cells(records: Sequence[dict[str, Any]], metric: str | None) -> list[Cell]:
    cells = _tell_apart([_cell(record, metric) for record in records])
    return sorted(cells, key=_order)


def _cell(record: dict[str, Any], metric: str | None) -> Cell:
    where = record["folder"]
    if record.get("schema") != SCHEMA:
        raise ValueError(
            f"{where}: expected a record of schema {SCHEMA}, got {record.get('schema')}"
        )
    if record["floor"] is not None and not record["n"]:
        return Cell(record, None, pd.DataFrame())
    # more than n: the run is being extended, and its record tells of the first n
    lines = read_samples(Path(where))[: record["n"]]
    if not lines or len(lines) < record["n"]:
        raise ValueError(f"{where}: {record['n']} samples are on record, {len(lines)} are there")
    chosen = metric or record["metric"]
    lacking = [line for line in lines if chosen not in line["scores"]]
    if lacking:
        known = sorted(lacking[0]["scores"])
        raise ValueError(
            f"{where}: sample {lacking[0]['doc_id']} has no score {chosen!r}, it has {known}"
        )
    frame = pd.DataFrame(
        {
            "score": line["scores"][chosen],
            **{name: line[name] for name in ("task", "doc_id", "question", "target", "answer")},
            **{name: line.get(name) for name in ("type", "image", "seconds")},
            **{name: line[name] for name in ("vision_tokens", "resident_tokens")},
            **_beside(line.get("controls", {}), chosen),
        }
        for line in lines
    ).set_index(["task", "doc_id"])
    if frame.index.has_duplicates:
        which = frame.index[frame.index.duplicated()][0]
        raise ValueError(f"{where}: sample {which[1]} of {which[0]} occurs twice")
    return Cell(record, chosen, frame.astype({"score": float}).sort_index())


def _beside(controls: dict[str, Any], metric: str) -> dict[str, float]:
    """Of one sample, the mean score of each kind of control over its seeds."""
    found = {}
    for kind, name in BESIDE.items():
        scores = [arm["scores"][metric] for arm in controls.get(kind, ())]
        found[name] = sum(scores) / len(scores) if scores else nan
    return found


def _tell_apart(cells: Sequence[Cell]) -> list[Cell]:
    names: dict[tuple, list[Cell]] = {}
    for cell in cells:
        named = cell.group, cell["method"], cell["budget"], cell.image
        names.setdefault(named, []).append(cell)
    return [
        replace(cell, variant=variant)
        for same in names.values()
        for cell, variant in zip(same, variants([c["config"] for c in same]), strict=True)
    ]


def _order(cell: Cell) -> tuple:
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
