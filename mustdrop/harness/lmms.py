"""DroppedVLM: a model with tokens dropped, as lmms-eval 0.7.3 calls it. Knows no files.

Differs from lmms-eval's own wrappers where those would falsify a pruning experiment: an exception
ends the run instead of becoming an empty answer, documents without an image are asked without one,
``clean()`` leaves the model alone, and each sample is handed over with its score as soon as its
batch is done.
"""

import inspect
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from lmms_eval.api.instance import GenerationResult, Instance, TokenCounts
from lmms_eval.api.model import lmms
from lmms_eval.api.task import Task
from lmms_eval.protocol import ChatMessages
from transformers import PreTrainedModel

from mustdrop.dropper import TokenDropper
from mustdrop.harness.chat import pictures, prompt_inputs, question, read_chat
from mustdrop.harness.measure import Meter, target_recall
from mustdrop.ledger import TokenLedger

SAMPLING = ("temperature", "top_p", "top_k")


@dataclass
class SampleCounts(TokenCounts):
    """lmms-eval's counters, with ours beside them: it asks for no more than ``to_dict``."""

    measured: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return {**super().to_dict(), **self.measured}


@dataclass(frozen=True, eq=False)
class _Request:
    """One document, ready to be asked."""

    instance: Instance
    task: Task
    doc_id: int
    doc: Mapping[str, Any]
    chat: ChatMessages
    options: Mapping[str, Any]


class DroppedVLM(lmms):
    """The adapter.

    Args:
        model: An unmodified model; it is not copied and never becomes an attribute that lmms-eval
            could delete.
        processor: Its processor.
        dropper: What to drop; one without stages for the model as it is.
        config: Everything that decides an answer; it is what ``repr`` tells, and what a cache may
            go by.
        batch_size: Prompts at a time; it changes no answer.
        nominal: The count of tokens asked for, for the records.
        max_new_tokens: Where a task sets none.
        answered: Samples that need not be asked again, by doc_id.
        on_sample: Called with each new sample, in the order of the documents, when its batch is
            done.
        on_ledger: Called with doc_id and ledger of each prompt.
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
    ) -> None:
        super().__init__()
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        # in a dict: lmms-eval deletes attributes that are modules
        self._held = {"model": model, "processor": processor}
        self.dropper = dropper or TokenDropper()
        self.config = dict(config or {})
        self.batch_size, self.nominal, self.max_new_tokens = batch_size, nominal, max_new_tokens
        self.answered = answered or {}
        self.on_sample, self.on_ledger = on_sample, on_ledger
        self.meter = Meter.of(model)

    def __repr__(self) -> str:
        told = {"dropper": repr(self.dropper), "weights": self.model.name_or_path, **self.config}
        return f"DroppedVLM({json.dumps(told, sort_keys=True, default=str)})"

    @property
    def model(self) -> Any:
        return self._held["model"]

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
        for batch in self._batches(requests):
            for request, sample in zip(batch, self._ask(batch), strict=True):
                results[id(request.instance)] = _result(sample)
        for instance in requests:
            if id(instance) not in results:
                results[id(instance)] = _result(self.answered[instance.arguments[3]])
        return [results[id(instance)] for instance in requests]

    def _batches(self, requests: list[Instance]) -> Iterator[list[_Request]]:
        """Unanswered requests that share their options, in the order of the documents."""
        groups: dict[str, list[Instance]] = {}
        for instance in sorted(requests, key=lambda instance: instance.arguments[3]):
            _, _, options, doc_id, *_ = instance.arguments
            if doc_id not in self.answered:
                groups.setdefault(json.dumps(options, sort_keys=True), []).append(instance)
        for group in groups.values():
            for start in range(0, len(group), self.batch_size):
                yield [self._read(instance) for instance in group[start : start + self.batch_size]]

    def _read(self, instance: Instance) -> _Request:
        _, to_messages, options, doc_id, task, split = instance.arguments
        doc = self.task_dict[task][split][doc_id]
        chat = read_chat(task, doc_id, to_messages(doc))
        return _Request(instance, to_messages.__self__, doc_id, doc, chat, options)

    @torch.inference_mode()
    def _ask(self, batch: Sequence[_Request]) -> list[dict[str, Any]]:
        start = time.perf_counter()
        inputs = prompt_inputs(self.model, self.processor, [request.chat for request in batch])
        needs = self.dropper.vision.needs if self.dropper.vision is not None else ()
        known = [
            {name: request.doc[name] for name in needs}
            for request in batch
            for _ in pictures(request.chat)
        ]
        with self.dropper.attach(self.model, known) as run:
            tokens = self.model.generate(**inputs, **self._options(batch[0].options))
        fresh = tokens[:, inputs["input_ids"].shape[1] :].cpu()
        seconds = (time.perf_counter() - start) / len(batch)
        return [
            self._sample(request, row, ledger, seconds)
            for request, row, ledger in zip(batch, fresh, run.ledgers, strict=True)
        ]

    def _options(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """What ``generate`` is told; ``until`` is ours to apply."""
        sampled = bool(asked.get("do_sample"))
        kept = {name: asked[name] for name in SAMPLING if sampled and asked.get(name) is not None}
        return {
            "do_sample": sampled,
            "num_beams": asked.get("num_beams") or 1,
            "max_new_tokens": asked.get("max_new_tokens") or self.max_new_tokens,
            "pad_token_id": self.processor.tokenizer.pad_token_id,
            **kept,
        }

    def _sample(
        self, request: _Request, row: torch.Tensor, ledger: TokenLedger, seconds: float
    ) -> dict[str, Any]:
        """The record of one answer."""
        new = self._length(row)
        answer = self.processor.tokenizer.decode(row[:new], skip_special_tokens=True)
        until = request.options.get("until") or []
        for end in [until] if isinstance(until, str) else until:
            answer = answer.split(end)[0]
        doc = request.doc
        kind = {"type": doc["type"]} if "type" in doc else {}
        marked = doc.get("target_patches")
        recall = {}
        if marked is not None and ledger.vision.any():
            recall = target_recall(ledger, marked)
        sample = {
            "doc_id": request.doc_id,
            "task": request.task.config.task,
            **kind,
            "question": question(request.chat),
            "answer": answer.strip(),
            "target": request.task.doc_to_target(doc),
            "scores": scores(request.task, request.instance, doc, answer),
            **self.meter.measure(ledger, self.nominal),
            **recall,
            "new_tokens": new,
            "seconds": seconds,
        }
        if self.on_ledger is not None:
            self.on_ledger(request.doc_id, ledger)
        if self.on_sample is not None:
            self.on_sample(sample)
        return sample

    def _length(self, row: torch.Tensor) -> int:
        """New tokens up to the end of the answer, its end token counted."""
        ends = self.model.generation_config.eos_token_id
        if ends is None:
            return len(row)
        ended = torch.isin(row, torch.tensor(ends if isinstance(ends, list) else [ends]))
        return int(ended.int().argmax()) + 1 if ended.any() else len(row)


def scores(task: Task, instance: Instance, doc: Mapping[str, Any], answer: str) -> dict[str, float]:
    """What the task's own scoring makes of one answer, the way lmms-eval would call it at the end.

    A score that is no number (a submission to a server, say) is left out.
    """
    own = replace(instance, resps=[answer], filtered_resps={}, token_counts=[])
    docs: Any = [doc]
    for ensemble in task._filters[:1]:
        ensemble.apply([own], docs)
    filtered = next(iter(own.filtered_resps.values()), answer)
    # without lmms-eval's wrapper, which tries five times and hides the error
    made = inspect.unwrap(type(task).process_results)(task, doc, [filtered])
    found = {
        name: value.get("score") if isinstance(value, Mapping) else value
        for name, value in made.items()
    }
    return {name: float(value) for name, value in found.items() if isinstance(value, int | float)}


def _result(sample: Mapping[str, Any]) -> GenerationResult:
    counters = ("vision_tokens", "resident_tokens", "counts", "prefill_macs", "kv_bytes", "seconds")
    counts = SampleCounts(
        input_tokens=sample["prompt_tokens"],
        output_tokens=sample["new_tokens"],
        measured={name: sample[name] for name in counters},
    )
    return GenerationResult(sample["answer"], counts)
