"""lmms-eval's own evaluation of one task, quiet and in one process. Knows no method."""

from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout

from loguru import logger

from mustdrop.evaluation.lmms import DroppedVLM
from mustdrop.evaluation.lmms_eval_api import Task, TaskManager, evaluator
from mustdrop.evaluation.process import unchanged_process
from mustdrop.evaluation.ranks import without_launcher
from mustdrop.runs.writer import RunWriter


def evaluate(
    adapter: DroppedVLM, task: Task, limit: int, seed: int, run: RunWriter
) -> dict[str, float]:
    """lmms-eval's own metrics of one task, its filter's name left out where there is but one.

    Raises:
        Whatever the model or the scoring raises.
    """
    with without_launcher(), _quiet(run):
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
    assert results is not None  # it is None on other ranks than the first
    found = results["results"][task.config.task]
    return {
        name.removesuffix(",none"): float(value)
        for name, value in found.items()
        if isinstance(value, int | float) and "_stderr" not in name
    }


@contextmanager
def _quiet(run: RunWriter) -> Iterator[None]:
    """lmms-eval's messages and bars in run.log instead of over ours; the process as it was."""
    with (
        unchanged_process(),
        (run.folder / "run.log").open("a") as log,
        redirect_stderr(log),
        redirect_stdout(log),
    ):
        logger.remove()
        # an open file: loguru takes the name of one for a template, and braces for its fields
        sink = logger.add(log, level="INFO", format="{time:YYYY-MM-DD HH:mm:ss} {message}")
        try:
            yield
        finally:
            logger.remove(sink)
