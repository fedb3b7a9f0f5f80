"""Traced samples: one run's trace of one sample, with what was asked and answered.

Knows nothing about figures.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool

from analysis.records.cells import RunResult
from analysis.records.traces import read_trace
from mustdrop.runs.trace import Trace


@dataclass(frozen=True, eq=False)
class Traced:
    """One sample of one run.

    Attributes:
        cell: The run.
        task: Of the sample.
        doc_id: Of the sample.
        trace: What was kept of it.
    """

    cell: RunResult
    task: str
    doc_id: int
    trace: Trace

    def __getitem__(self, name: str) -> Any:
        """A column of the run's samples: question, answer, target, score."""
        return self.cell.samples.loc[(self.task, self.doc_id), name]

    @property
    def arm(self) -> str:
        """The run in words."""
        return named(self.cell)

    @property
    def question(self) -> str:
        return str(self["question"])

    @property
    def verdict(self) -> str:
        """What was answered, and whether that is right."""
        said = f"“{self['answer']}”"
        if self["score"] >= 1:
            return f"{said}, right"
        return f"{said}, expected “{self['target']}”"


def named(cell: RunResult) -> str:
    """A run in words: its method, its budget, the control on its image."""
    control = f", {cell.image} image" if cell.image else ""
    at = "" if cell["budget"] == "none" else f" at {str(cell['budget']).removeprefix('t')}"
    return f"{cell['method']}{at}{control}"


def traced(cell: RunResult, docs: Sequence[int] = ()) -> Iterator[Traced]:
    """The samples of a run that were traced, in order, read one by one; torn traces are left out.

    Args:
        cell: The run.
        docs: Only these; by default all.

    Warns:
        LeftOut: Of each trace that is torn.
    """
    for task, doc in cell.samples.index if cell.metric is not None else ():
        if not docs or int(doc) in docs:
            trace = read_trace(cell["folder"], int(doc))
            if trace is not None:
                yield Traced(cell, str(task), int(doc), trace)


def alive(trace: Trace, layer: int, number: int = 0) -> Bool[np.ndarray, "rows columns"]:
    """The patches of an image that some token carries into a layer."""
    grid, slots, carries = trace.ledger.image_tokens(number)
    there = np.isin(slots.numpy(), trace.ledger.alive[layer].numpy())
    return np.asarray(carries.numpy()[there].any(0)).reshape(grid)
