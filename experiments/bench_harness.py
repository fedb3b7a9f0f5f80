"""Time of a run over the time of a bare loop of ``generate`` over the same prepared inputs.

The run is paused after every chunk of batches, and the bare loop answers the same questions. So a
machine that other programs use slows both. Start and end of the run are left out: the ratio is that
of a long run. One thread for the model. Ctrl-C reports the chunks that are done.

    mustdrop bench harness                          # 1,600 questions: about 15 minutes
    mustdrop bench harness --workers 0 --questions 320
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from rich.console import Console

from experiments.checks.run_checks import checked
from experiments.run import built
from mustdrop.evaluation.answers import generate_options
from mustdrop.evaluation.chat import document_name, read_document
from mustdrop.evaluation.job import EvalJob
from mustdrop.evaluation.model_inputs import prompt_inputs
from mustdrop.presets.compose import composed
from mustdrop.profiling.device import processor_name
from mustdrop.provenance.fingerprint import run_fingerprint
from mustdrop.runs.folder import read_samples
from mustdrop.runs.writer import RunWriter

CHUNK = 5  # batches between two pauses; the first of them is not timed


class PausedWriter(RunWriter):
    """Writer of a run that lets the bare loop answer every chunk of questions too.

    Attributes:
        pairs: Wall time and CPU time of each chunk: of the run, then of the bare loop.
    """

    def __init__(self, job: EvalJob, folder: Path) -> None:
        super().__init__(folder, run_fingerprint(job.config), "")
        self.job, self.size = job, job.config["batch_size"]
        self.pairs: list[tuple[tuple[float, float], tuple[float, float]]] = []
        self.start, self.last = (0.0, 0.0), 0.0

    def add(self, sample: Mapping[str, Any]) -> None:
        super().add(sample)
        done, chunk = len(self.samples), CHUNK * self.size
        if done % chunk == self.size:
            self.start = _clocks()
        elif done % chunk == 0:
            run = _passed(self.start)
            self.pairs.append((run, self._bare(range(done - chunk + self.size, done))))
        self.last = time.perf_counter()

    def _bare(self, documents: Sequence[int]) -> tuple[float, float]:
        """Times of a loop of ``generate`` over documents, whose inputs are prepared before."""
        job = self.job
        task: Any = job.task  # a ConfigurableMessagesTask, which has doc_to_messages
        model: Any = job.model
        name, pad = task.config.task, job.processor.tokenizer.pad_token_id
        options = generate_options(task.config.generation_kwargs, 64, pad)
        batches = []
        for first in range(documents[0], documents[-1] + 1, self.size):
            chats = [
                read_document(name, task.eval_docs, doc, task.doc_to_messages)[1]
                for doc in range(first, first + self.size)
            ]
            names = [document_name(name, doc) for doc in range(first, first + self.size)]
            batches.append(prompt_inputs(model, job.processor, chats, names))
        start = _clocks()
        for inputs in batches:
            model.generate(**inputs, **options)
        return _passed(start)


def measure(questions: int, overrides: Sequence[str]) -> dict[str, Any]:
    """Run the questions with pauses; return the ratios of the chunks, at ctrl-C those so far."""
    cfg = composed("method=vanilla", "budget=none", "controls=none", "threads=1", *overrides)
    cfg.benchmark.limit = questions
    config = checked(cfg, list(overrides))
    job = built(cfg, config)
    with tempfile.TemporaryDirectory() as folder, PausedWriter(job, Path(folder)) as opened:
        writer = cast(PausedWriter, opened)
        try:
            job.run(writer)
        except KeyboardInterrupt:
            if not writer.pairs:
                raise
        end = time.perf_counter() - writer.last
        samples = read_samples(Path(folder))
    pairs = writer.pairs
    wall = statistics.median(bare[0] for _, bare in pairs) / ((CHUNK - 1) * writer.size)
    return {
        "wall": _spread([run[0] / bare[0] for run, bare in pairs]),
        "cpu": _spread([run[1] / bare[1] for run, bare in pairs]),
        "bare_ms": 1e3 * wall,
        "waiting_ms": 1e3 * statistics.median(line["waiting_seconds"] for line in samples),
        "end_ms": 1e3 * end / len(samples),
        "questions": len(samples),
        "batch_size": writer.size,
        "workers": config["workers"],
    }


def _clocks() -> tuple[float, float]:
    return time.perf_counter(), time.thread_time()


def _passed(start: tuple[float, float]) -> tuple[float, float]:
    wall, cpu = _clocks()
    return wall - start[0], cpu - start[1]


def _spread(ratios: Sequence[float]) -> dict[str, float]:
    """Median, quartiles and extremes."""
    quarter = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else [*ratios] * 3
    return {
        "median": statistics.median(ratios), "q1": quarter[0], "q3": quarter[2],
        "min": min(ratios), "max": max(ratios),
    }  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and write the record."""
    parser = argparse.ArgumentParser(
        prog="mustdrop bench harness",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("--questions", type=int, default=1600, help="multiple of a chunk")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--out", type=Path, help="write the record here (json)")
    options = parser.parse_args(arguments)
    chunk = CHUNK * options.batch_size
    if options.questions < chunk or options.questions % chunk:
        parser.error(f"--questions must be a multiple of {chunk}, got {options.questions}")
    overrides = [f"workers={options.workers}", f"batch_size={options.batch_size}"]
    record = measure(options.questions, overrides)
    for clock in ("wall", "cpu"):
        ratio = record[clock]
        Console().print(
            f"{clock}: {ratio['median']:.3f} of the bare loop, quartiles {ratio['q1']:.3f} to "
            f"{ratio['q3']:.3f}, extremes {ratio['min']:.3f} and {ratio['max']:.3f}"
        )
    Console().print(
        f"per question: bare {record['bare_ms']:.1f} ms, waiting for a worker "
        f"{record['waiting_ms']:.2f} ms, scoring at the end {record['end_ms']:.1f} ms"
    )
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        record |= {"torch": torch.__version__, "threads": 1, "processor": processor_name()}
        options.out.write_text(json.dumps(record, indent=1) + "\n")
