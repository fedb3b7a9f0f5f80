"""DroppedVLM: a model with a dropper, as a model of lmms-eval 0.7.3. Knows nothing about files.

Differs from lmms-eval's wrappers, which would falsify a pruning experiment: an exception ends the
run instead of becoming an empty answer, a document whose image or video cannot be read is left out
and never scored, documents without an image are answered without one, ``clean()`` keeps the model,
and samples are passed on with their scores after each batch.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, nullcontext
from typing import Any

import torch
from loguru import logger
from transformers import PreTrainedModel

from mustdrop.budget import Budget
from mustdrop.dropper import TokenDropper
from mustdrop.engine.annotations import Annotations
from mustdrop.engine.shared_encoding import SharedEncoding
from mustdrop.evaluation.ahead import chosen_workers
from mustdrop.evaluation.answers import NOT_SCORED, generate_options, result
from mustdrop.evaluation.batches import BatchFeed, DocumentOrder, PreparedBatch, windows_of
from mustdrop.evaluation.context import beyond_context, context_warning
from mustdrop.evaluation.frame_cache import FrameCache, VideoReader
from mustdrop.evaluation.image_controls import ImageControl, require_original_image
from mustdrop.evaluation.likelihood import losses
from mustdrop.evaluation.lmms_eval_api import Instance, lmms
from mustdrop.evaluation.metrics import CostMeter
from mustdrop.evaluation.model_inputs import on_device
from mustdrop.evaluation.passes import PassResult, model_pass
from mustdrop.evaluation.requests import Request, read_request
from mustdrop.evaluation.samples import SampleMaker
from mustdrop.evaluation.token_controls import ControlPass, Controls
from mustdrop.ledger import TokenLedger
from mustdrop.models import adapter_for


class DroppedVLM(lmms):
    """A model with a dropper, for lmms-eval.

    Args:
        model: Unmodified model; it is not copied, and lmms-eval cannot delete it.
        dropper: Method; a dropper without stages for vanilla.
        config: All settings that decide an answer; ``repr`` shows them, and a cache may use them.
        batch_size: Prompts per batch; it may change answers in bfloat16 (README), not in float32.
        budget: Budget of the run, for the records.
        max_new_tokens: Limit for tasks that set none.
        answered: Samples that are not answered again, by doc_id.
        on_sample: Called with each new sample after its batch, in the order of the documents.
        on_ledger: Called with doc_id and ledger of each prompt.
        image: Image control; None shows the images of the document.
        controls: Token controls that run on the same batches; None for none.
        on_unreadable: Called with doc_id and reason of each document whose image or video cannot be
            read, which is left out; None: the first one is an error.
        frame_cache: Cache of decoded videos; None for none.
        batch_window: Number of batches whose documents are sorted by length; 1: none are sorted.
        workers: Worker processes that prepare the next batches; None for the default; 0 for none.

    Raises:
        ValueError: If a number of batches or documents is below 1, annotated images are needed but
            replaced, or workers are not supported.
    """

    is_simple = False

    def __init__(
        self,
        model: PreTrainedModel,
        processor: Any,
        dropper: TokenDropper | None = None,
        config: Mapping[str, Any] | None = None,
        batch_size: int = 1,
        budget: Budget | None = None,
        max_new_tokens: int = 64,
        answered: Mapping[int, Mapping[str, Any]] | None = None,
        on_sample: Callable[[dict[str, Any]], None] | None = None,
        on_ledger: Callable[[int, TokenLedger], None] | None = None,
        image: ImageControl | None = None,
        controls: Controls | None = None,
        workers: int | None = 0,
        batch_window: int = 1,
        on_unreadable: Callable[[int, str], None] | None = None,
        frame_cache: FrameCache | None = None,
    ) -> None:
        super().__init__()
        for name, count in (("batch_size", batch_size), ("batch_window", batch_window)):
            if count < 1:
                raise ValueError(f"{name} must be at least 1, got {count}")
        # In a dict, because lmms-eval deletes attributes that are modules.
        self._held = {"model": model, "processor": processor}
        self.dropper, self.image, self.controls = dropper or TokenDropper(), image, controls
        require_original_image(self.dropper, image)
        self.config = dict(config or {})
        self.batch_size, self.max_new_tokens = batch_size, max_new_tokens
        self.workers, self.batch_window = chosen_workers(workers), batch_window
        self.answered, self.on_sample, self.on_ledger = answered or {}, on_sample, on_ledger
        self.on_unreadable, self.videos = on_unreadable, VideoReader.of(processor, frame_cache)
        self.unreadable: dict[int, str] = {}
        self.maker = SampleMaker(
            model, processor.tokenizer, self.dropper, budget, CostMeter.from_model(model), image
        )
        self.encoding = SharedEncoding(adapter_for(model))

    def __repr__(self) -> str:
        shown = {"dropper": repr(self.dropper), "weights": self.model.name_or_path, **self.config}
        return f"DroppedVLM({json.dumps(shown, sort_keys=True, default=str)})"

    @property
    def model(self) -> Any:
        return self._held["model"]

    @property
    def positions(self) -> int | None:
        """Number of positions of the model; None if its config sets none."""
        return getattr(self.model.config.get_text_config(), "max_position_embeddings", None)

    @property
    def processor(self) -> Any:
        return self._held["processor"]

    @property
    def device(self) -> torch.device:
        return self.model.device

    def clean(self) -> None:
        """Do nothing: lmms-eval's method would delete the model before scoring."""

    def loglikelihood(self, requests: list[Instance]) -> list[Any]:
        """Loss of each given answer, and whether it is the greedy one; in lmms-eval's form."""
        if self.image is not None or self.controls is not None:
            raise ValueError("controls need generated answers; this task scores given answers")
        return losses(
            requests, self.task_dict, self.model, self.processor, self.dropper, self.batch_size,
            self.maker.measured,
        )  # fmt: skip

    def generate_until_multi_round(self, requests: list[Instance]) -> list[str]:
        raise NotImplementedError("tasks of several rounds are not supported")

    def generate_until(self, requests: list[Instance]) -> list[Any]:
        """Answers as GenerationResult, in the order of the requests."""
        samples: dict[int, dict[str, Any]] = {}
        vision = self.dropper.vision
        marks = vision.annotations if vision is not None else ()
        left = [request for request in requests if request.arguments[3] not in self.answered]
        windows = windows_of(left, self.batch_size * self.batch_window)
        order = DocumentOrder(windows, self.on_sample or (lambda sample: None))

        def leave_out(instance: Instance, reason: str) -> None:
            assert self.on_unreadable is not None
            self.unreadable[instance.arguments[3]] = reason
            order.leave_out(instance)
            self.on_unreadable(instance.arguments[3], reason)

        feed = BatchFeed(
            self.read, self.processor, marks, windows, self.batch_size, self.workers,
            leave_out if self.on_unreadable else None,
        )  # fmt: skip
        with closing(iter(feed)) as batches:
            for batch in batches:
                for request, sample in zip(batch.requests, self._ask(batch), strict=True):
                    samples[id(request.instance)] = sample
                    order.add(request.instance, sample)
        if self.unreadable and not samples and not self.answered:
            raise ValueError(
                f"no document can be read, the first one because: {min(self.unreadable.items())[1]}"
            )
        context = beyond_context(samples.values(), self.positions)
        if context["beyond"]:
            logger.warning(context_warning(context, next(iter(samples.values()))["task"]))
        return [
            NOT_SCORED
            if instance.arguments[3] in self.unreadable
            else result(samples.get(id(instance)) or self.answered[instance.arguments[3]])
            for instance in requests
        ]

    def read(self, instance: Instance) -> Request:
        """Request for the document of an instance."""
        return read_request(instance, self.task_dict, self.image, self.processor, self.videos)

    @torch.inference_mode()
    def _ask(self, prepared: PreparedBatch) -> list[dict[str, Any]]:
        """Samples of a batch: one pass of the method, then one pass of each control."""
        batch = prepared.requests
        start = time.perf_counter()
        inputs = on_device(self.model, prepared.inputs)
        method_pass = self._pass(self.dropper, batch, inputs, prepared.annotations)
        ledgers = method_pass.ledgers
        method_end = time.perf_counter()
        controls: list[tuple[ControlPass, PassResult]] = []
        for control in self.controls.passes(self.dropper, ledgers) if self.controls else ():
            # Two controls are equal if the method drops only before the language model.
            same = (passed for other, passed in controls if other.dropper == control.dropper)
            passed = next(same, None) or self._pass(control.dropper, batch, inputs, (), control)
            controls.append((control, passed))
        self.encoding.forget()
        controls_end = time.perf_counter()
        samples = []
        for index, request in enumerate(batch):
            sample = self.maker.sample(request, index, method_pass)
            model_seconds = method_end - start
            sample["seconds"] = (prepared.processor_seconds + model_seconds) / len(batch)
            sample["processor_seconds"] = prepared.processor_seconds / len(batch)
            sample["model_seconds"] = model_seconds / len(batch)
            sample["waiting_seconds"] = prepared.waiting_seconds / len(batch)
            if self.controls is not None:
                sample["controls"] = self.maker.control_results(request, index, controls)
                sample["controls_seconds"] = (controls_end - method_end) / len(batch)
            if self.on_ledger is not None:
                self.on_ledger(request.doc_id, ledgers[index])
            samples.append(sample)
        return samples

    def _pass(
        self,
        dropper: TokenDropper,
        batch: Sequence[Request],
        inputs: Mapping[str, Any],
        annotations: Annotations,
        control: ControlPass | None = None,
    ) -> PassResult:
        """One pass over a batch; images are encoded once for all passes that drop none of them."""
        pad = self.processor.tokenizer.pad_token_id
        options = generate_options(batch[0].options, self.max_new_tokens, pad)
        names = [request.name for request in batch]
        shared = nullcontext() if self.controls is None else self.encoding.attach(dropper)
        with shared:
            return model_pass(self.model, dropper, names, inputs, options, annotations, control)
