"""Passes over a calibration split: its questions as a model takes them, and a line that moves."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from mustdrop.evaluation.chat import document_name, prompt_inputs, read_document


def batches(
    model: Any, processor: Any, task: Any, asked: Sequence[int], batch_size: int
) -> list[Any]:
    """Inputs of ``generate``, batch by batch.

    Args:
        model: The model.
        processor: Its processor.
        task: The lmms-eval task of the split.
        asked: Indices of the questions in it.
        batch_size: Questions at a time.
    """
    name, docs = task.config.task, task.eval_docs
    chats = [read_document(name, docs, index, task.doc_to_messages)[1] for index in asked]
    names = [document_name(name, index) for index in asked]
    return [
        prompt_inputs(model, processor, chats[at : at + batch_size], names[at : at + batch_size])
        for at in range(0, len(chats), batch_size)
    ]


@contextmanager
def moving(told: str, total: int) -> Iterator[Callable[[], None]]:
    """A line that moves, step by step; it is gone when the pass is over."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    console = Console(file=sys.stderr)
    with Progress(
        *columns, TimeRemainingColumn(), console=console, transient=True,
        disable=not console.is_terminal,
    ) as bar:  # fmt: skip
        task = bar.add_task(told, total=total)
        yield lambda: bar.advance(task)
