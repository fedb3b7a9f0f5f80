"""Runs cells in a fixed order until a time limit, and saves the record after every step.

Knows nothing about models or devices, and imports only the standard library, so that a wrong
installation is an error of a cell and not of the script.
"""

import json
import math
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Row = Mapping[str, Any]
NOT_REACHED, RUNNING = "not reached", "running"
OPEN = (NOT_REACHED, RUNNING)  # states of a cell that has not ended


class NotHere(Exception):
    """A measurement that this machine cannot take; the message says why. It is not a failure."""


@dataclass(frozen=True)
class GpuStep:
    """One measurement.

    Attributes:
        name: Name of the step, unique within its cell.
        run: Takes the measurement and returns a row of the record.
        needs: Names of earlier steps of the cell; the step is skipped if one of them failed.
    """

    name: str
    run: Callable[[], Row]
    needs: Sequence[str] = ()


@dataclass(frozen=True)
class GpuCell:
    """A group of measurements.

    Attributes:
        name: Name of the cell.
        steps: Returns the steps in their order. It imports the modules that the cell needs, so
            that a failing import is recorded as the cell's error.
    """

    name: str
    steps: Callable[[], Sequence[GpuStep]]


@dataclass(frozen=True)
class Position:
    """Position of a run: its next step, and the time left.

    Attributes:
        cell: Number of the cell, from 1.
        cells: Number of cells.
        step: Number of the step, from 1.
        steps: Number of steps of the cell.
        name: Names of cell and step.
        elapsed: Seconds since the start.
        left: Seconds until the time limit.
    """

    cell: int
    cells: int
    step: int
    steps: int
    name: str
    elapsed: float
    left: float


@dataclass
class Runner:
    """Runs cells and keeps the record.

    A step starts only if the longest step of its cell so far would end before the limit. A running
    step is not interrupted. Cells of the record that have ended are left out, so that another
    process can continue after one that ended early.

    Attributes:
        record: The record; its key ``cells`` has an entry for every cell from the start on.
        limit: Seconds that all cells may take together.
        save: Saves the record; called after every step.
        report: Called before every step.
        clear: Frees memory; called after each cell and each step that failed. It raises an error
            if the device no longer works, which ends the run.
        clock: Seconds since some fixed moment.
        started: Moment from which the limit counts, on ``clock``; by default the call of ``run``.
    """

    record: dict[str, Any]
    limit: float
    save: Callable[[Mapping[str, Any]], None]
    report: Callable[[Position], None]
    clear: Callable[[], None] = lambda: None
    clock: Callable[[], float] = time.monotonic
    started: float | None = None

    def run(self, cells: Sequence[GpuCell]) -> None:
        """Run the cells in their order."""
        if self.started is None:
            self.started = self.clock()
        entries = self.record.setdefault(
            "cells", [{"cell": cell.name, "state": NOT_REACHED} for cell in cells]
        )
        self.save(self.record)
        for number, (cell, entry) in enumerate(zip(cells, entries, strict=True), 1):
            if self.elapsed >= self.limit:
                break
            if entry["state"] == NOT_REACHED:
                self._run_cell(cell, entry, (number, len(cells)))
                self.clear()
        self.record["seconds"] = self.elapsed
        self.record["finished"] = True
        self.save(self.record)

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        assert self.started is not None
        return self.clock() - self.started

    def _run_cell(self, cell: GpuCell, entry: dict[str, Any], number: tuple[int, int]) -> None:
        begin = self.clock()
        entry.update(state=RUNNING, rows=[], errors=[], not_here=[], skipped=[], not_reached=[])
        self.report(Position(*number, 0, 0, cell.name, self.elapsed, self.limit - self.elapsed))
        try:
            steps = cell.steps()
        except Exception as error:
            entry.update(state="failed", errors=[{"step": "start", **described(error)}])
            self.save(self.record)
            return
        entry["steps"] = len(steps)
        entry["not_reached"] = [step.name for step in steps]
        failed: set[str] = set()
        longest = 0.0
        for index, step in enumerate(steps, 1):
            if self.elapsed + longest >= self.limit:
                break
            entry["not_reached"].remove(step.name)
            if failed.intersection(step.needs):
                failed.add(step.name)
                entry["skipped"].append(step.name)
                continue
            name, left = f"{cell.name} · {step.name}", self.limit - self.elapsed
            self.report(Position(*number, index, len(steps), name, self.elapsed, left))
            start = self.clock()
            try:
                row = step.run()
            except NotHere as reason:
                failed.add(step.name)
                entry["not_here"].append({"step": step.name, "reason": str(reason)})
            except Exception as error:
                failed.add(step.name)
                entry["errors"].append({"step": step.name, **described(error)})
            else:
                entry["rows"].append({"step": step.name, **row})
            longest = max(longest, self.clock() - start)
            entry["seconds"] = self.clock() - begin
            self.save(self.record)
            if step.name in failed:  # outside the handlers, which still hold the failed tensors
                self.clear()
        entry["state"] = ended(entry)
        self.save(self.record)


def ended(entry: Mapping[str, Any]) -> str:
    """State of a cell that has ended."""
    if entry["not_reached"]:
        return "cut by the time limit"
    if entry["errors"]:
        return "done with errors" if entry["rows"] else "failed"
    return "not possible here" if entry["not_here"] and not entry["rows"] else "done"


def described(error: Exception) -> dict[str, Any]:
    """Describe an error by type, text and the lines that led to it, without machine paths."""
    frames = traceback.extract_tb(error.__traceback__)
    return {
        "error": f"{type(error).__name__}: {error}",
        "where": [f"{short_path(frame.filename)}:{frame.lineno} {frame.line}" for frame in frames],
    }


def short_path(path: str) -> str:
    """Shorten a source file's path to its package, so that it names no folder of the machine."""
    parts = Path(path).parts
    for marker in ("site-packages", "dist-packages"):
        if marker in parts:
            return "/".join(parts[parts.index(marker) + 1 :])
    root = Path(__file__).parents[2]
    inside = Path(path).is_relative_to(root)
    return Path(path).relative_to(root).as_posix() if inside else Path(path).name


def write(path: Path, text: str) -> None:
    """Write a file so that it is complete at any moment, even if the process is killed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)


def dumps(record: Mapping[str, Any]) -> str:
    """Format the record as JSON; NaN and infinity become text."""
    options: dict[str, Any] = {"indent": 1, "ensure_ascii": False, "allow_nan": False}
    try:
        return json.dumps(record, **options) + "\n"
    except ValueError:  # NaN or infinity somewhere
        return json.dumps(_plain(record), **options) + "\n"


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def rows_of(record: Mapping[str, Any], kind: str) -> Iterator[dict[str, Any]]:
    """Yield all rows of a kind, with the name of their cell."""
    for entry in record.get("cells", ()):
        for row in entry.get("rows", ()):
            if row.get("kind") == kind:
                yield {"cell": entry["cell"], **row}
