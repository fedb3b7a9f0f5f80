"""DroppedVLM: a model with a dropper, as a model of lmms-eval 0.7.3. Knows nothing about files.

Differs from lmms-eval's wrappers, which would falsify a pruning experiment: an exception ends the
run instead of becoming an empty answer, documents without an image are answered without one,
``clean()`` keeps the model, and samples are passed on with their scores after each batch.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from loguru import logger
from transformers import PreTrainedModel

from mustdrop.budget import Budget
from mustdrop.dropper import TokenDropper
from mustdrop.engine.annotations import Annotations
from mustdrop.engine.finite import NotFinite
from mustdrop.evaluation.answers import answer, generate_options, result, scores
from mustdrop.evaluation.chat import naming, prompt_inputs, question
from mustdrop.evaluation.context import beyond_context, context_warning
from mustdrop.evaluation.image_controls import ImageControl, require_original_image
from mustdrop.evaluation.likelihood import losses
from mustdrop.evaluation.lmms_eval_api import Instance, lmms
from mustdrop.evaluation.metrics import CostMeter, target_recall
from mustdrop.evaluation.reach import nominal_average, out_of_reach
from mustdrop.evaluation.requests import Request, batched, read_request
from mustdrop.evaluation.token_controls import ControlPass, Controls
from mustdrop.ledger import TokenLedger
from mustdrop.models import adapter_for
from mustdrop.reduction import Reduction


class _PassResult(NamedTuple):
    """Result of a pass over a batch: per prompt, the new tokens, ledger and mixed layers."""

    rows: torch.Tensor
    ledgers: list[TokenLedger]
    mixed: list[dict[int, Reduction]]


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

    Raises:
        ValueError: If ``batch_size`` is below 1, or annotated images are needed but replaced.
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
    ) -> None:
        super().__init__()
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        # In a dict, because lmms-eval deletes attributes that are modules.
        self._held = {"model": model, "processor": processor}
        self.dropper, self.image, self.controls = dropper or TokenDropper(), image, controls
        require_original_image(self.dropper, image)
        self.config = dict(config or {})
        self.batch_size, self.budget, self.max_new_tokens = batch_size, budget, max_new_tokens
        self.answered, self.on_sample, self.on_ledger = answered or {}, on_sample, on_ledger
        self.meter = CostMeter.from_model(model)

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
            self._measured,
        )  # fmt: skip

    def generate_until_multi_round(self, requests: list[Instance]) -> list[str]:
        raise NotImplementedError("tasks of several rounds are not supported")

    def generate_until(self, requests: list[Instance]) -> list[Any]:
        """Answers as GenerationResult, in the order of the requests."""
        samples: dict[int, dict[str, Any]] = {}
        for instances in batched(requests, self.answered, self.batch_size):
            batch = [self.read(instance) for instance in instances]
            for request, sample in zip(batch, self._ask(batch), strict=True):
                samples[id(request.instance)] = sample
        context = beyond_context(samples.values(), self.positions)
        if context["beyond"]:
            logger.warning(context_warning(context, next(iter(samples.values()))["task"]))
        return [
            result(samples.get(id(instance)) or self.answered[instance.arguments[3]])
            for instance in requests
        ]

    def read(self, instance: Instance) -> Request:
        """Request for the document of an instance."""
        return read_request(instance, self.task_dict, self.image, self.processor)

    @torch.inference_mode()
    def _ask(self, batch: Sequence[Request]) -> list[dict[str, Any]]:
        """Samples of a batch: one pass of the method, then one pass of each control."""
        start = time.perf_counter()
        chats, names = zip(*((request.chat, request.name) for request in batch), strict=True)
        inputs = prompt_inputs(self.model, self.processor, chats, names)
        needs = self.dropper.vision.annotations if self.dropper.vision is not None else ()
        annotations = [entry for request in batch for entry in request.annotations(needs)]
        rows, ledgers, mixed = self._pass(self.dropper, batch, inputs, annotations)
        method_end = time.perf_counter()
        controls: list[tuple[ControlPass, _PassResult]] = []
        for control in self.controls.passes(self.dropper, ledgers) if self.controls else ():
            # Two controls are equal if the method drops only before the language model.
            same = (passed for other, passed in controls if other.dropper == control.dropper)
            passed = next(same, None) or self._pass(control.dropper, batch, inputs, (), control)
            controls.append((control, passed))
        controls_end = time.perf_counter()
        samples = []
        for index, request in enumerate(batch):
            sample = self._sample(request, rows[index], ledgers[index], mixed[index])
            sample["seconds"] = (method_end - start) / len(batch)
            if self.controls is not None:
                sample["controls"] = self._control_results(request, index, controls)
                sample["controls_seconds"] = (controls_end - method_end) / len(batch)
            if self.on_ledger is not None:
                self.on_ledger(request.doc_id, ledgers[index])
            if self.on_sample is not None:
                self.on_sample(sample)
            samples.append(sample)
        return samples

    def _pass(
        self,
        dropper: TokenDropper,
        batch: Sequence[Request],
        inputs: Mapping[str, Any],
        annotations: Annotations,
        control: ControlPass | None = None,
    ) -> _PassResult:
        """New tokens and ledgers of a prepared batch with a dropper.

        Raises:
            RuntimeError: If a control kept a wrong number of tokens.
            ValueError: If a number in the computation is infinite or NaN; names the document.
        """
        pad = self.processor.tokenizer.pad_token_id
        options = generate_options(batch[0].options, self.max_new_tokens, pad)
        try:
            with dropper.attach(self.model, annotations) as run:
                tokens = self.model.generate(**inputs, **options)
            new = tokens[:, inputs["input_ids"].shape[1] :]
            # One copy for both, so that the check adds no wait for the device.
            flags = run.finite.flags().to(new)
            read = torch.cat([new.flatten(), flags]).cpu()
            run.finite.require(read[new.numel() :].bool())
        except NotFinite as error:
            under = "" if control is None else f", under the control {control.name}"
            raise ValueError(f"{batch[error.prompt].name}{under}: {error.fault}") from error
        if control is not None:
            control.check(run.ledgers)
        mixed = [
            {layer: decisions[index] for layer, decisions in run.mixed.items()}
            for index in range(len(batch))
        ]
        return _PassResult(read[: new.numel()].view(new.shape), run.ledgers, mixed)

    def _sample(
        self, request: Request, row: torch.Tensor, ledger: TokenLedger, mixed: dict[int, Reduction]
    ) -> dict[str, Any]:
        """Sample of one request, without times."""
        scored, new_tokens = self._scored_answer(request, row)
        doc = request.doc
        kind = {"type": doc["type"]} if "type" in doc else {}
        # The annotations of an image do not hold for its replacement.
        original = self.image is None and bool(ledger.vision.any())
        target = request.target if original else None
        recall = {} if target is None else target_recall(ledger, target, mixed)
        return {
            "doc_id": request.doc_id,
            "task": request.task.config.task,
            **kind,
            "image": request.image,
            "question": question(request.chat),
            "target": request.task.doc_to_target(doc),
            **scored,
            **self._measured(ledger),
            **out_of_reach(self.budget, self.dropper, ledger, adapter_for(self.model).facts),
            **recall,
            "new_tokens": new_tokens,
        }

    def _measured(self, ledger: TokenLedger) -> dict[str, Any]:
        return self.meter.measure(ledger, nominal_average(self.budget, ledger))

    def _scored_answer(self, request: Request, row: torch.Tensor) -> tuple[dict[str, Any], int]:
        """Answer with its scores, and its number of tokens."""
        text, new_tokens = answer(self.model, self.processor.tokenizer, row, request.options)
        with naming(request.name):
            values = scores(request.task, request.instance, request.doc, text)
        return {"answer": text.strip(), "scores": values}, new_tokens

    def _control_results(
        self, request: Request, index: int, controls: Sequence[tuple[ControlPass, _PassResult]]
    ) -> dict[str, list[dict[str, Any]]]:
        """Results of the controls for one request: control name -> one entry per pass."""
        results: dict[str, list[dict[str, Any]]] = {}
        for control, (rows, ledgers, _) in controls:
            scored, _ = self._scored_answer(request, rows[index])
            nominal = nominal_average(self.budget, ledgers[index])
            counts = ledgers[index].counts(nominal).as_dict()
            entry = {"seed": control.seed, **scored, "counts": counts}
            results.setdefault(control.name, []).append(entry)
        return results
