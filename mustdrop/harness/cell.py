"""One cell of an experiment: a model, a dropper and a benchmark, run to its end and recorded.

Everything arrives built; what is left to do is read from the run's folder. Knows no configuration
language.
"""

import platform
import random
import sys
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
import torch
from lmms_eval import evaluator
from lmms_eval.api.task import Task
from lmms_eval.tasks import TaskManager
from loguru import logger
from transformers import PreTrainedModel, ProcessorMixin

from mustdrop.dropper import TokenDropper
from mustdrop.harness.lmms import DroppedVLM
from mustdrop.harness.progress import Meanwhile
from mustdrop.harness.record import trace_path
from mustdrop.harness.run import Run, writing
from mustdrop.harness.summary import record_of
from mustdrop.ledger import TokenLedger


@dataclass(frozen=True, eq=False)
class Cell:
    """What runs.

    Attributes:
        model: Ready to generate.
        processor: Its own.
        dropper: The method; one without stages for vanilla.
        task: The benchmark.
        config: Resolved; it names everything.
        limit: Samples wanted; None: all there are.
        traces: Samples whose ledger is kept.
    """

    model: PreTrainedModel
    processor: ProcessorMixin
    dropper: TokenDropper
    task: Task
    config: Mapping[str, Any]
    limit: int | None = None
    traces: Sequence[int] = ()

    @property
    def nominal(self) -> float | None:
        """The count of tokens asked for."""
        return float(self.config["budget"]["tokens"]) if self.config["budget"] else None

    def check(self) -> None:
        """Raise what is wrong with method, model and metric before anything is asked."""
        asked = self.config["benchmark"]["metric"]
        known = [metric["metric"] for metric in self.task.config.metric_list]
        if asked not in known:
            raise ValueError(f"benchmark.metric must be one of {', '.join(known)}, got {asked!r}")
        vision = self.dropper.vision
        lacking = sorted(set(vision.needs if vision else ()) - set(self.task.eval_docs[0]))
        if lacking:
            name = self.config["benchmark"]["name"]
            raise ValueError(
                f"{type(vision).__name__} needs {', '.join(lacking)} of every document, which "
                f"{name} does not know; PocketVQA does (benchmark=pocket_vqa)"
            )
        with self.dropper.attach(self.model, known=()):
            pass

    def run(self, run: Run) -> dict[str, Any]:
        """Answer what is not answered yet, then let lmms-eval score all of it.

        Returns:
            The record.
        """
        self.check()
        available = len(self.task.eval_docs)
        # an earlier, longer run may have left more samples than are asked for now
        wanted = max(
            [
                available if self.limit is None else min(self.limit, available),
                *(i + 1 for i in run.samples),
            ]
        )
        traced = [
            doc for doc in self.traces if doc < wanted and not trace_path(run.folder, doc).exists()
        ]
        answered = {doc: line for doc, line in run.samples.items() if doc not in traced}
        run.expect(wanted)
        name = "/".join(run.folder.parts[-4:-1])
        with Meanwhile(
            name, wanted, self.config["benchmark"]["metric"], run.samples.values()
        ) as bar:

            def keep(sample: dict[str, Any]) -> None:
                # one that is answered again for its trace is on disk already
                if sample["doc_id"] not in run.samples:
                    run.add(sample)
                    bar.add(sample)

            adapter = DroppedVLM(
                self.model,
                self.processor,
                self.dropper,
                self.config,
                self.config["batch_size"],
                self.nominal,
                answered=answered,
                on_sample=keep,
                on_ledger=_keeper(run.folder, traced),
            )
            metrics = evaluate(adapter, self.task, wanted, self.config["seed"], run)
        return record_of(self.config, run, metrics, available, hardware(self.model))


def evaluate(adapter: DroppedVLM, task: Task, limit: int, seed: int, run: Run) -> dict[str, float]:
    """lmms-eval's own metrics of one task, its filter's name left out where there is but one.

    Raises:
        Whatever the model or the scoring raises.
    """
    with _quiet(run):
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
def _quiet(run: Run) -> Iterator[None]:
    """lmms-eval's messages and bars in run.log instead of over ours; the random state as it was."""
    drawn = random.getstate(), numpy.random.get_state(), torch.get_rng_state()
    logger.remove()
    sink = logger.add(
        run.folder / "run.log", level="INFO", format="{time:YYYY-MM-DD HH:mm:ss} {message}"
    )
    try:
        with (run.folder / "run.log").open("a") as log, redirect_stderr(log):
            yield
    finally:
        logger.remove(sink)
        logger.add(sys.stderr, level="WARNING")
        random.setstate(drawn[0])
        numpy.random.set_state(drawn[1])
        torch.set_rng_state(drawn[2])


def hardware(model: PreTrainedModel) -> dict[str, Any]:
    """What it ran on, for whoever compares times."""
    info = Path("/proc/cpuinfo")
    names = (
        [line for line in info.read_text().splitlines() if line.startswith("model name")]
        if info.exists()
        else []
    )
    return {
        "cpu": names[0].partition(":")[2].strip()
        if names
        else platform.processor() or platform.machine(),
        "gpu": torch.cuda.get_device_name() if model.device.type == "cuda" else None,
        "threads": torch.get_num_threads(),
    }


def _keeper(folder: Path, wanted: Sequence[int]) -> Any:
    def keep(doc_id: int, ledger: TokenLedger) -> None:
        if doc_id in wanted:
            path = trace_path(folder, doc_id)
            with writing(folder):
                path.parent.mkdir(exist_ok=True)
                # under another name first: a run killed here must not leave half a file
                ledger.save(path.with_name(f"{doc_id}.tmp.npz"))
                path.with_name(f"{doc_id}.tmp.npz").replace(path)

    return keep
