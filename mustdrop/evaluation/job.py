"""One evaluation job: run a model with a dropper on a benchmark and make the record.

Token controls belong to the job of the method: they answer the same batches in further passes, and
their results are stored in the same samples. An image control makes a separate job.

All parts are given as objects. The run's folder tells which samples remain. Knows nothing about the
configuration language.
"""

import platform
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from transformers import PreTrainedModel, ProcessorMixin

from mustdrop.budget import Budget
from mustdrop.dropper import TokenDropper
from mustdrop.evaluation.answers import REPETITION_PENALTY
from mustdrop.evaluation.chat import all_visual_inputs
from mustdrop.evaluation.context import beyond_context, context_warning
from mustdrop.evaluation.evaluate import evaluate
from mustdrop.evaluation.frame_cache import FrameCache, VideoReader
from mustdrop.evaluation.image_controls import ImageControl, require_original_image
from mustdrop.evaluation.lmms import DroppedVLM
from mustdrop.evaluation.lmms_eval_api import Task
from mustdrop.evaluation.progress import RunProgress
from mustdrop.evaluation.ranks import SINGLE, RankGroup
from mustdrop.evaluation.tasks.stock import StockTask
from mustdrop.evaluation.token_controls import Controls
from mustdrop.ledger import TokenLedger
from mustdrop.runs.disk import writing
from mustdrop.runs.folder import has_trace, read_samples, trace_path
from mustdrop.runs.shards import Shard, merge_shards, read_shards, shards_folder
from mustdrop.runs.summary import record_of
from mustdrop.runs.writer import RunWriter


@dataclass(frozen=True, eq=False)
class EvalJob:
    """A model, a dropper and a benchmark to evaluate together.

    Attributes:
        model: Model, ready to generate.
        processor: Processor of the model.
        dropper: Method; a dropper without stages for vanilla.
        task: Benchmark.
        config: Resolved configuration of the run.
        limit: Number of samples; None for all.
        traces: Indices of the samples whose ledger is kept.
        image: Image control; None shows the images of the document.
        controls: Token controls that run on the same batches; None for none.
        frame_cache: Cache of decoded videos; None for none.
    """

    model: PreTrainedModel
    processor: ProcessorMixin
    dropper: TokenDropper
    task: Task
    config: Mapping[str, Any]
    limit: int | None = None
    traces: Sequence[int] = ()
    image: ImageControl | None = None
    controls: Controls | None = None
    frame_cache: FrameCache | None = None

    @property
    def budget(self) -> Budget | None:
        """Budget of the run."""
        return Budget.read(self.config["budget"])

    def check(self) -> None:
        """Raise an error if metric, annotations, images, method and model do not fit together."""
        metric = self.config["benchmark"]["metric"]
        metrics = [entry["metric"] for entry in self.task.config.metric_list]
        if metric not in metrics:
            raise ValueError(
                f"benchmark.metric must be one of {', '.join(metrics)}, got {metric!r}"
            )
        vision = self.dropper.vision
        task: Any = self.task  # a ConfigurableMessagesTask, which has doc_to_messages
        name, docs = task.config.task, task.eval_docs
        lacking = sorted(set(vision.annotations if vision else ()) - set(docs.features))
        if lacking:
            benchmark = self.config["benchmark"]["name"]
            raise ValueError(
                f"{type(vision).__name__} needs {', '.join(lacking)} of every document, which "
                f"{benchmark} does not have; PocketVQA has them (benchmark=pocket_vqa)"
            )
        require_original_image(self.dropper, self.image)
        if self.image is not None:
            videos = VideoReader.of(self.processor, self.frame_cache)
            self.image.check(all_visual_inputs(name, docs, task.doc_to_messages, videos))
        with self.dropper.attach(self.model, annotations=()):
            pass

    def run(self, run: RunWriter, group: RankGroup = SINGLE) -> dict[str, Any]:
        """Answer the samples that are not answered yet and score all samples with lmms-eval.

        Args:
            run: Writer of the run's folder.
            group: Ranks that share the work.

        Returns:
            Record of the run.
        """
        self.check()
        available = len(self.task.eval_docs)
        wanted, traced = self._requested(run.folder, run.samples)
        run.expect(wanted)
        parts = shards_folder(run.folder, run.mark.id)
        if group.world > 1 or parts.exists():
            self.share(run.folder, run.mark.id, group)
            group.wait_for_all("share")
            merge_shards(parts, run.samples, run.add, wanted)
            wanted, traced = self._requested(run.folder, run.samples)
        answered = {doc: line for doc, line in run.samples.items() if doc not in traced}
        nothing_left = len(answered) == wanted
        name = "/".join(run.folder.parts[-4:-1])
        with self._bar(name, wanted, run.samples.values(), nothing_left) as bar:

            def keep(sample: dict[str, Any]) -> None:
                # A sample that is answered again for its trace is already on disk.
                if sample["doc_id"] not in run.samples:
                    run.add(sample)
                    bar.add(sample)

            adapter = self._adapter(run.folder, answered, traced, keep, run.note_unreadable)
            metrics = evaluate(adapter, self.task, wanted, self.config["seed"], run)
        context = beyond_context(run.samples.values(), adapter.positions)
        if context["beyond"]:
            print(context_warning(context, self.config["benchmark"]["name"]), file=sys.stderr)
        record = record_of(self.config, run, metrics, available, hardware(self.model))
        generation = {"repetition_penalty": REPETITION_PENALTY}
        return {**record, "context": context, "generation": generation}

    def share(self, folder: Path, mark: str, group: RankGroup) -> None:
        """Answer the documents of one rank (index modulo number of ranks) into a separate file.

        Args:
            folder: Folder of the run.
            mark: Fingerprint of the code.
            group: Group that holds this process's rank.
        """
        self.check()
        parts = shards_folder(folder, mark)
        done = {line["doc_id"]: line for line in read_samples(folder)}
        wanted, traced = self._requested(folder, done)
        done |= read_shards(parts)
        documents = range(group.rank, wanted, group.world)
        if not documents:
            return
        answered = {doc: line for doc, line in done.items() if doc not in traced}
        shown = [done[doc] for doc in documents if doc in done]
        name = f"rank {group.rank} of {group.world}"
        with (
            Shard(parts, group.rank) as part,
            self._bar(name, len(documents), shown, group.rank > 0) as bar,
        ):

            def keep(sample: dict[str, Any]) -> None:
                if sample["doc_id"] not in done:
                    part.add(sample)
                    bar.add(sample)

            # rank 0 tries unreadable documents again, and notes them
            adapter = self._adapter(folder, answered, traced, keep, lambda *_: None)
            with redirect_stderr(StringIO()):  # hides the progress bar of lmms-eval
                self.task.build_all_requests(limit=wanted, rank=group.rank, world_size=group.world)
            adapter.task_dict[self.task.config.task] = self.task.dataset
            adapter.generate_until(list[Any](self.task.instances or ()))

    def _requested(self, folder: Path, samples: Collection[int]) -> tuple[int, list[int]]:
        """Number of documents to answer, and indices of those whose ledger must be saved.

        Raises:
            ValueError: If the benchmark cannot score exactly this number of documents.
        """
        available = len(self.task.eval_docs)
        wanted = available if self.limit is None else min(self.limit, available)
        # An earlier run with a higher limit may have left more samples than requested now.
        wanted = max([wanted, *(doc + 1 for doc in samples)])
        if isinstance(self.task, StockTask):
            self.task.require(wanted)
        traced = [doc for doc in self.traces if not has_trace(folder, doc)]
        return wanted, [doc for doc in traced if doc < wanted]

    def _bar(
        self, name: str, total: int, done: Iterable[Mapping[str, Any]], quiet: bool
    ) -> RunProgress:
        console = Console(quiet=True) if quiet else None
        return RunProgress(name, total, self.config["benchmark"]["metric"], done, console)

    def _adapter(
        self,
        folder: Path,
        answered: Mapping[int, Mapping[str, Any]],
        traced: Sequence[int],
        keep: Callable[[dict[str, Any]], None],
        on_unreadable: Callable[[int, str], None],
    ) -> DroppedVLM:
        return DroppedVLM(
            self.model,
            self.processor,
            self.dropper,
            self.config,
            self.config["batch_size"],
            self.budget,
            answered=answered,
            on_sample=keep,
            on_ledger=_keeper(folder, traced),
            image=self.image,
            controls=self.controls,
            workers=self.config["workers"],
            batch_window=self.config["batch_window"],
            on_unreadable=on_unreadable,
            frame_cache=self.frame_cache,
        )


def hardware(model: PreTrainedModel) -> dict[str, Any]:
    """Processor, GPU and number of threads, for comparing times."""
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
                # Under a temporary name first: a run killed here must not leave an incomplete file.
                ledger.save(path.with_name(f"{doc_id}.tmp.npz"))
                path.with_name(f"{doc_id}.tmp.npz").replace(path)

    return keep
