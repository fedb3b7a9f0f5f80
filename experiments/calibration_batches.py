"""Passes over a calibration split: input batches of its questions, and a progress bar."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from mustdrop.evaluation.chat import document_name, read_document
from mustdrop.evaluation.frame_cache import VideoReader
from mustdrop.evaluation.model_inputs import prompt_inputs


def batches(
    model: Any, processor: Any, task: Any, indices: Sequence[int], batch_size: int
) -> list[Any]:
    """Prepare questions as batches of inputs of ``generate``.

    Args:
        model: The model.
        processor: Processor of the model.
        task: lmms-eval task of the split.
        indices: Indices of the questions in the split.
        batch_size: Number of questions in a batch.
    """
    name, docs = task.config.task, task.eval_docs
    to_messages, videos = task.doc_to_messages, VideoReader.of(processor)
    chats = [read_document(name, docs, index, to_messages, videos)[1] for index in indices]
    names = [document_name(name, index) for index in indices]
    starts = range(0, len(chats), batch_size)
    return [
        prompt_inputs(model, processor, chats[i : i + batch_size], names[i : i + batch_size])
        for i in starts
    ]


@contextmanager
def progress_bar(label: str, total: int) -> Iterator[Callable[[], None]]:
    """Show a progress bar while the context is open; the yielded function advances it."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    console = Console(file=sys.stderr)
    with Progress(
        *columns, TimeRemainingColumn(), console=console, transient=True,
        disable=not console.is_terminal,
    ) as bar:  # fmt: skip
        task = bar.add_task(label, total=total)
        yield lambda: bar.advance(task)
