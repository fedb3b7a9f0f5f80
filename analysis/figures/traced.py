"""Traced samples: the trace of one sample in one run, with its question and answer.

Knows nothing about figures.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool

from analysis.records.budgets import budget_label
from analysis.records.cells import RunResult
from analysis.records.traces import read_trace
from mustdrop.runs.trace import Trace


@dataclass(frozen=True, eq=False)
class Traced:
    """Traced sample of a run.

    Attributes:
        cell: Run.
        task: Task of the sample.
        doc_id: Document id of the sample.
        trace: Trace of the sample.
    """

    cell: RunResult
    task: str
    doc_id: int
    trace: Trace

    def __getitem__(self, name: str) -> Any:
        """Value of the sample in a column such as question, answer, target or score."""
        return self.cell.samples.loc[(self.task, self.doc_id), name]

    @property
    def arm(self) -> str:
        """Label of the run, see :func:`named`."""
        return named(self.cell)

    @property
    def question(self) -> str:
        return str(self["question"])

    @property
    def verdict(self) -> str:
        """Answer of the model, and whether it is right."""
        answer = f"“{self['answer']}”"
        if self["score"] >= 1:
            return f"{answer}, right"
        return f"{answer}, expected “{self['target']}”"


def named(cell: RunResult) -> str:
    """Label of a run: its method, budget and control on the image."""
    control = f", {cell.image} image" if cell.image else ""
    at = "" if cell["budget"] == "none" else f" at {budget_label(cell['budget'])}"
    return f"{cell['method']}{at}{control}"


def traced(cell: RunResult, docs: Sequence[int] = ()) -> Iterator[Traced]:
    """Read the traced samples of a run one by one, in order; damaged traces are left out.

    Args:
        cell: Run.
        docs: Document ids to read; by default all.

    Warns:
        LeftOut: For each damaged trace.
    """
    for task, doc in cell.samples.index if cell.metric is not None else ():
        if not docs or int(doc) in docs:
            trace = read_trace(cell["folder"], int(doc))
            if trace is not None:
                yield Traced(cell, str(task), int(doc), trace)


def alive(trace: Trace, layer: int, number: int = 0) -> Bool[np.ndarray, "rows columns"]:
    """Mask of the patches of an image that a token carries into a layer."""
    grid, slots, carries = trace.ledger.image_tokens(number)
    entering = np.isin(slots.numpy(), trace.ledger.alive[layer].numpy())
    return np.asarray(carries.numpy()[entering].any(0)).reshape(grid)
