"""DroppedVLM: a model with tokens dropped, as lmms-eval 0.7.3 calls it. Knows no files.

Differs from lmms-eval's own wrappers where those would falsify a pruning experiment: an exception
ends the run instead of becoming an empty answer, documents without an image are asked without one,
``clean()`` leaves the model alone, and each sample is handed over with its score as soon as its
batch is done.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from loguru import logger
from transformers import PreTrainedModel

from mustdrop.dropper import TokenDropper
from mustdrop.engine.annotations import Annotations
from mustdrop.engine.finite import NotFinite
from mustdrop.evaluation.answers import answer, generate_options, result, scores
from mustdrop.evaluation.chat import naming, prompt_inputs, question
from mustdrop.evaluation.context import beyond_context, context_warning
from mustdrop.evaluation.image_controls import ImageControl, require_own_image
from mustdrop.evaluation.lmms_eval_api import GenerationResult, Instance, lmms
from mustdrop.evaluation.metrics import CostMeter, target_recall
from mustdrop.evaluation.requests import Request, read_request
from mustdrop.evaluation.token_controls import ControlPass, Controls
from mustdrop.ledger import TokenLedger
from mustdrop.reduction import Reduction


class _Passed(NamedTuple):
    """What a pass over a batch left: per prompt, its new tokens, its ledger, its mixed layers."""

    rows: torch.Tensor
    ledgers: list[TokenLedger]
    mixed: list[dict[int, Reduction]]


class DroppedVLM(lmms):
    """The adapter.

    Args:
        model: An unmodified model; it is not copied and never becomes an attribute that lmms-eval
            could delete.
        processor: Its processor.
        dropper: What to drop; one without stages for the model as it is.
        config: Everything that decides an answer; it is what ``repr`` tells, and what a cache may
            go by.
        batch_size: Number of prompts at a time. In float32 no answer depends on it; in bfloat16 a
            prompt may keep other tokens alone than in a batch, see README.
        nominal: The count of tokens asked for, for the records.
        max_new_tokens: Where a task sets none.
        answered: Samples that need not be asked again, by doc_id.
        on_sample: Called with each new sample, in the order of the documents, when its batch is
            done.
        on_ledger: Called with doc_id and ledger of each prompt.
        image: What is shown instead of a document's own pictures; None: those.
        controls: What runs beside the dropper on the same batch; None: nothing.

    Raises:
        ValueError: If ``batch_size`` is no count, or the dropper has to be told of pictures that
            are not shown.
    """

    is_simple = False

    def __init__(
        self,
        model: PreTrainedModel,
        processor: Any,
        dropper: TokenDropper | None = None,
        config: Mapping[str, Any] | None = None,
        batch_size: int = 1,
        nominal: float | None = None,
        max_new_tokens: int = 64,
        answered: Mapping[int, Mapping[str, Any]] | None = None,
        on_sample: Callable[[dict[str, Any]], None] | None = None,
        on_ledger: Callable[[int, TokenLedger], None] | None = None,
        image: ImageControl | None = None,
        controls: Controls | None = None,
    ) -> None:
        super().__init__()
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        # in a dict: lmms-eval deletes attributes that are modules
        self._held = {"model": model, "processor": processor}
        self.dropper, self.image, self.controls = dropper or TokenDropper(), image, controls
        require_own_image(self.dropper, image)
        self.config = dict(config or {})
        self.batch_size, self.nominal, self.max_new_tokens = batch_size, nominal, max_new_tokens
        self.answered = answered or {}
        self.on_sample, self.on_ledger = on_sample, on_ledger
        self.meter = CostMeter.from_model(model)

    def __repr__(self) -> str:
        told = {"dropper": repr(self.dropper), "weights": self.model.name_or_path, **self.config}
        return f"DroppedVLM({json.dumps(told, sort_keys=True, default=str)})"

    @property
    def model(self) -> Any:
        return self._held["model"]

    @property
    def positions(self) -> int | None:
        """Positions that the model was trained on; None: its config sets none."""
        return getattr(self.model.config.get_text_config(), "max_position_embeddings", None)

    @property
    def processor(self) -> Any:
        return self._held["processor"]

    @property
    def device(self) -> torch.device:
        return self.model.device

    def clean(self) -> None:
        """Nothing: lmms-eval's own would delete the model before scoring."""

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        raise NotImplementedError("DroppedVLM generates; it has no loglikelihood")

    def generate_until_multi_round(self, requests: list[Instance]) -> list[str]:
        raise NotImplementedError("a second turn on a compacted cache is not supported")

    def generate_until(self, requests: list[Instance]) -> list[Any]:
        """The answers, each a GenerationResult, in the order of the requests."""
        results: dict[int, GenerationResult] = {}
        samples = []
        for batch in self._batches(requests):
            for request, sample in zip(batch, self._ask(batch), strict=True):
                results[id(request.instance)] = result(sample)
                samples.append(sample)
        context = beyond_context(samples, self.positions)
        if context["beyond"]:
            logger.warning(context_warning(context, samples[0]["task"]))
        for instance in requests:
            if id(instance) not in results:
                results[id(instance)] = result(self.answered[instance.arguments[3]])
        return [results[id(instance)] for instance in requests]

    def _batches(self, requests: list[Instance]) -> Iterator[list[Request]]:
        """Unanswered requests that share their options, in the order of the documents."""
        groups: dict[str, list[Instance]] = {}
        for instance in sorted(requests, key=lambda instance: instance.arguments[3]):
            _, _, options, doc_id, *_ = instance.arguments
            if doc_id not in self.answered:
                groups.setdefault(json.dumps(options, sort_keys=True), []).append(instance)
        for group in groups.values():
            for start in range(0, len(group), self.batch_size):
                yield [self.read(instance) for instance in group[start : start + self.batch_size]]

    def read(self, instance: Instance) -> Request:
        """Its document, ready to be asked."""
        return read_request(instance, self.task_dict, self.image, self.processor)

    @torch.inference_mode()
    def _ask(self, batch: Sequence[Request]) -> list[dict[str, Any]]:
        """The records of a batch: the method's pass, then one for each control beside it."""
        start = time.perf_counter()
        chats, names = zip(*((request.chat, request.name) for request in batch), strict=True)
        inputs = prompt_inputs(self.model, self.processor, chats, names)
        needs = self.dropper.vision.annotations if self.dropper.vision is not None else ()
        known = [told for request in batch for told in request.known(needs)]
        rows, ledgers, mixed = self._pass(self.dropper, batch, inputs, known)
        asked = time.perf_counter()
        beside: list[tuple[ControlPass, _Passed]] = []
        for arm in self.controls.passes(self.dropper, ledgers) if self.controls else ():
            # where a method drops before the language model alone, a flat schedule is its own
            same = (passed for other, passed in beside if other.dropper == arm.dropper)
            passed = next(same, None) or self._pass(arm.dropper, batch, inputs, (), arm)
            beside.append((arm, passed))
        ended = time.perf_counter()
        samples = []
        for place, request in enumerate(batch):
            sample = self._sample(request, rows[place], ledgers[place], mixed[place])
            sample["seconds"] = (asked - start) / len(batch)
            if self.controls is not None:
                sample["controls"] = self._beside(request, place, beside)
                sample["controls_seconds"] = (ended - asked) / len(batch)
            if self.on_ledger is not None:
                self.on_ledger(request.doc_id, ledgers[place])
            if self.on_sample is not None:
                self.on_sample(sample)
            samples.append(sample)
        return samples

    def _pass(
        self,
        dropper: TokenDropper,
        batch: Sequence[Request],
        inputs: Mapping[str, Any],
        known: Annotations,
        arm: ControlPass | None = None,
    ) -> _Passed:
        """New tokens and ledgers of a prepared batch under a dropper.

        Raises:
            RuntimeError: If a control did not keep what it had to.
            ValueError: If a number on the way to an answer is infinite or NaN; with the document.
        """
        told = batch[0].options
        options = generate_options(told, self.max_new_tokens, self.processor.tokenizer.pad_token_id)
        try:
            with dropper.attach(self.model, known) as run:
                tokens = self.model.generate(**inputs, **options)
            new = tokens[:, inputs["input_ids"].shape[1] :]
            # one copy for both, so that the check costs no wait of its own
            flags = run.finite.flags().to(new)
            read = torch.cat([new.flatten(), flags]).cpu()
            run.finite.require(read[new.numel() :].bool())
        except NotFinite as error:
            request = batch[error.prompt]
            where = f"document {request.doc_id} of {request.task.config.task}"
            under = "" if arm is None else f", under the control {arm.name}"
            raise ValueError(f"{where}{under}: {error.fault}") from error
        if arm is not None:
            arm.check(run.ledgers)
        mixed = [
            {layer: decisions[place] for layer, decisions in run.mixed.items()}
            for place in range(len(batch))
        ]
        return _Passed(read[: new.numel()].view(new.shape), run.ledgers, mixed)

    def _sample(
        self,
        request: Request,
        row: torch.Tensor,
        ledger: TokenLedger,
        mixed: Mapping[int, Reduction],
    ) -> dict[str, Any]:
        """The record of one answer; its times are the batch's."""
        said, new = self._said(request, row)
        doc = request.doc
        kind = {"type": doc["type"]} if "type" in doc else {}
        # what is known of a picture is not known of what was put in its place
        marked = doc.get("target_patches") if self.image is None else None
        recall = {}
        if marked is not None and ledger.vision.any():
            recall = target_recall(ledger, marked, mixed)
        return {
            "doc_id": request.doc_id,
            "task": request.task.config.task,
            **kind,
            "image": request.image,
            "question": question(request.chat),
            "target": request.task.doc_to_target(doc),
            **said,
            **self.meter.measure(ledger, self.nominal),
            **recall,
            "new_tokens": new,
        }

    def _said(self, request: Request, row: torch.Tensor) -> tuple[dict[str, Any], int]:
        """One answer with its scores, and how many tokens it has."""
        text, new = answer(self.model, self.processor.tokenizer, row, request.options)
        with naming(request.name):
            found = scores(request.task, request.instance, request.doc, text)
        return {"answer": text.strip(), "scores": found}, new

    def _beside(
        self, request: Request, place: int, beside: Sequence[tuple[ControlPass, _Passed]]
    ) -> dict[str, list[dict[str, Any]]]:
        """What the controls answered to one request, by their kind."""
        told: dict[str, list[dict[str, Any]]] = {}
        for arm, (rows, ledgers, _) in beside:
            said, _ = self._said(request, rows[place])
            counts = ledgers[place].counts(self.nominal).as_dict()
            told.setdefault(arm.name, []).append({"seed": arm.seed, **said, "counts": counts})
        return told
