"""Batches of documents, read and prepared for the model, by worker processes or in this one.

Knows nothing about dropping, except the names of the annotations that a strategy reads.
"""

import json
import pickle
import time
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from PIL import Image

from mustdrop.engine.annotations import Annotations
from mustdrop.evaluation.ahead import ahead
from mustdrop.evaluation.chat import UnreadableDocument, document_name, naming, replaced
from mustdrop.evaluation.lmms_eval_api import Instance
from mustdrop.evaluation.model_inputs import processor_inputs
from mustdrop.evaluation.requests import Request


@dataclass(frozen=True, eq=False)
class PreparedBatch:
    """Documents with the inputs of the model.

    Attributes:
        requests: Requests, without their images.
        inputs: What the processor returned, in main memory.
        annotations: Marks of each image.
        processor_seconds: Time of the processor.
        waiting_seconds: Time for which the model waited for this batch.
    """

    requests: Sequence[Request]
    inputs: Mapping[str, Any]
    annotations: Annotations
    processor_seconds: float
    waiting_seconds: float = 0.0


class DocumentOrder:
    """Passes samples on in the order of the documents, whatever the order of the batches.

    Args:
        windows: Instances in the order of the documents.
        receive: Called with each sample.
    """

    def __init__(
        self, windows: Sequence[Sequence[Instance]], receive: Callable[[dict[str, Any]], None]
    ) -> None:
        self.remaining = deque(id(instance) for window in windows for instance in window)
        self.early: dict[int, dict[str, Any]] = {}
        self.receive = receive

    def add(self, instance: Instance, sample: dict[str, Any]) -> None:
        """Pass on a sample, and those that waited for it."""
        self.early[id(instance)] = sample
        self._pass_on()

    def leave_out(self, instance: Instance) -> None:
        """Wait no longer for the sample of an instance."""
        self.remaining.remove(id(instance))
        self._pass_on()

    def _pass_on(self) -> None:
        while self.remaining and self.remaining[0] in self.early:
            self.receive(self.early.pop(self.remaining.popleft()))


@dataclass(frozen=True, eq=False)
class BatchFeed:
    """Prepares batches of instances.

    Attributes:
        read: Function that reads the document of an instance.
        processor: Processor of the model.
        annotations: Names of the marks that the method reads.
        windows: Instances of each window. If a window has more than one batch, its documents are
            sorted by the length of their prompts, the longest first.
        batch_size: Documents of a batch.
        workers: Number of worker processes that prepare the next windows; 0 for none.
        on_unreadable: Called with each instance whose image or video cannot be read, which is left
            out, and the reason; None: the first one ends the iteration with an error.
    """

    read: Callable[[Instance], Request]
    processor: Any
    annotations: Sequence[str]
    windows: Sequence[Sequence[Instance]]
    batch_size: int
    workers: int = 0
    on_unreadable: Callable[[Instance, str], None] | None = None

    def __iter__(self) -> Generator[PreparedBatch]:
        names = [_names(window) for window in self.windows]
        with closing(ahead(self._packed, names, self.workers)) as packed:
            for window in self.windows:
                start = time.perf_counter()
                unreadable, prepared = pickle.loads(next(packed))
                batches = [_unpacked(batch, window) for batch in prepared]
                waiting = (time.perf_counter() - start) / max(len(batches), 1)
                for number, reason in unreadable.items():
                    assert self.on_unreadable is not None
                    self.on_unreadable(window[number], reason)
                for batch in batches:
                    yield replace(batch, waiting_seconds=waiting)

    def _packed(self, index: int) -> bytes:
        """Unreadable documents and prepared batches of a window, without instances.

        Instances hold functions, which cannot be sent.
        """
        window = self.windows[index]
        with naming(_names(window)):
            requests, unreadable = self._read(window)
            order = list(requests)
            if len(window) > self.batch_size:
                order.sort(key=lambda number: -self._length(requests[number]))
            batches = [
                order[first : first + self.batch_size]
                for first in range(0, len(order), self.batch_size)
            ]
            prepared = [
                (batch, *self._prepared([requests[number] for number in batch]))
                for batch in batches
            ]
            return pickle.dumps((unreadable, prepared), pickle.HIGHEST_PROTOCOL)

    def _read(self, window: Sequence[Instance]) -> tuple[dict[int, Request], dict[int, str]]:
        """Requests of a window by index, and the reasons why other documents cannot be read."""
        requests, unreadable = {}, {}
        for number, instance in enumerate(window):
            try:
                requests[number] = self.read(instance)
            except UnreadableDocument as error:
                if self.on_unreadable is None:
                    raise
                unreadable[number] = str(error)
        return requests, unreadable

    def _length(self, request: Request) -> int:
        """Number of tokens of a prompt, which is prepared alone to count them."""
        inputs = processor_inputs(self.processor, [request.chat], [request.name])
        return inputs["input_ids"].shape[1]

    def _prepared(self, requests: Sequence[Request]) -> tuple[Any, ...]:
        """What :func:`_unpacked` needs of the documents of a batch, and the processor's time."""
        chats, names = zip(*((request.chat, request.name) for request in requests), strict=True)
        start = time.perf_counter()
        inputs = processor_inputs(self.processor, chats, names)
        seconds = time.perf_counter() - start
        marks = [mark for request in requests for mark in request.annotations(self.annotations)]
        documents = [
            (_without_pictures(request.doc), replaced(request.chat, []), request.image)
            for request in requests
        ]
        # As arrays, because torch would send tensors through a folder that may be small.
        return documents, {name: _array(value) for name, value in inputs.items()}, marks, seconds


def windows_of(requests: Sequence[Instance], size: int) -> list[list[Instance]]:
    """Groups of at most ``size`` requests with equal options, in the order of the documents."""
    groups: dict[str, list[Instance]] = {}
    for instance in sorted(requests, key=lambda instance: instance.arguments[3]):
        options = json.dumps(instance.arguments[2], sort_keys=True)
        groups.setdefault(options, []).append(instance)
    return [
        group[start : start + size]
        for group in groups.values()
        for start in range(0, len(group), size)
    ]


def _unpacked(prepared: tuple[Any, ...], window: Sequence[Instance]) -> PreparedBatch:
    numbers, documents, arrays, marks, seconds = prepared
    requests = [
        Request(window[number], *document)
        for number, document in zip(numbers, documents, strict=True)
    ]
    inputs = {name: _tensor(value) for name, value in arrays.items()}
    return PreparedBatch(requests, inputs, marks, seconds)


def _names(batch: Sequence[Instance]) -> str:
    names = []
    for instance in batch:
        *_, doc_id, task, _ = instance.arguments
        names.append(document_name(task, doc_id))
    return ", ".join(names)


def _array(value: Any) -> Any:
    return value.numpy() if isinstance(value, torch.Tensor) else value


def _tensor(value: Any) -> Any:
    return torch.from_numpy(value) if isinstance(value, np.ndarray) else value


def _without_pictures(value: Any) -> Any:
    """A document, or a part of it, with None for its images: runs are scored without them."""
    if isinstance(value, Image.Image):
        return None
    if isinstance(value, Mapping):
        return {name: _without_pictures(part) for name, part in value.items()}
    return [_without_pictures(part) for part in value] if isinstance(value, list) else value
