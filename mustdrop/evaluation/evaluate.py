"""Run lmms-eval's evaluation of one task, quiet and in one process. Knows nothing about methods."""

from argparse import Namespace
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any

from loguru import logger

from mustdrop.evaluation.lmms import DroppedVLM
from mustdrop.evaluation.lmms_eval_api import Task, TaskManager, evaluator
from mustdrop.evaluation.process import unchanged_process
from mustdrop.evaluation.ranks import without_launcher
from mustdrop.runs.writer import RunWriter


def evaluate(
    adapter: DroppedVLM, task: Task, limit: int, seed: int, run: RunWriter
) -> dict[str, float]:
    """Metrics of one task by lmms-eval's own code; the filter name ``none`` is removed.

    Documents that cannot be read are left out of the metrics.

    Raises:
        Whatever the model or the scoring raises.
    """
    with without_launcher(), _quiet(run), _without(task, adapter.unreadable):
        results = evaluator.simple_evaluate(
            model=adapter,
            tasks=[task],
            task_manager=TaskManager("ERROR", include_defaults=False),
            limit=limit,
            bootstrap_iters=0,
            process_docs_parallel=1,
            verbosity="ERROR",
            random_seed=seed,
            numpy_random_seed=seed,
            torch_random_seed=seed,
            fewshot_random_seed=seed,
            cli_args=Namespace(
                output_path=str(run.folder), process_with_media=False, reasoning_tags=None
            ),
        )
    assert results is not None  # it is None only on ranks other than 0
    metrics = results["results"][task.config.task]
    return {
        name.removesuffix(",none"): float(value)
        for name, value in metrics.items()
        if isinstance(value, int | float) and "_stderr" not in name
    }


@contextmanager
def _without(task: Any, unreadable: Mapping[int, str]) -> Iterator[None]:
    """A context in which lmms-eval does not score these documents."""
    documents = task.doc_iterator

    def readable(**options: Any) -> Iterator[tuple[int, Any]]:
        return (entry for entry in documents(**options) if entry[0] not in unreadable)

    task.doc_iterator = readable
    try:
        yield
    finally:
        del task.doc_iterator


@contextmanager
def _quiet(run: RunWriter) -> Iterator[None]:
    """A context that sends lmms-eval's messages and progress bars to run.log.

    The settings of the process are restored at the end.
    """
    with (
        unchanged_process(),
        (run.folder / "run.log").open("a") as log,
        redirect_stderr(log),
        redirect_stdout(log),
    ):
        logger.remove()
        # An open file, because loguru reads a file name as a template and braces as its fields.
        sink = logger.add(log, level="INFO", format="{time:YYYY-MM-DD HH:mm:ss} {message}")
        try:
            yield
        finally:
            logger.remove(sink)
