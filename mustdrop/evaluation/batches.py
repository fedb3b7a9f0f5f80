"""Batches of documents, read and prepared for the model, by worker processes or in this one.

Knows nothing about dropping, except the names of the annotations that a strategy reads.
"""

import pickle
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from PIL import Image

from mustdrop.engine.annotations import Annotations
from mustdrop.evaluation.ahead import ahead
from mustdrop.evaluation.chat import document_name, naming, processor_inputs, replaced
from mustdrop.evaluation.lmms_eval_api import Instance
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


@dataclass(frozen=True, eq=False)
class BatchFeed:
    """Prepares batches of instances.

    Attributes:
        read: Function that reads the document of an instance.
        processor: Processor of the model.
        annotations: Names of the marks that the method reads.
        batches: Instances of each batch.
        workers: Number of worker processes that prepare the next batches; 0 for none.
    """

    read: Callable[[Instance], Request]
    processor: Any
    annotations: Sequence[str]
    batches: Sequence[Sequence[Instance]]
    workers: int = 0

    def __iter__(self) -> Iterator[PreparedBatch]:
        names = [_names(batch) for batch in self.batches]
        with closing(ahead(self._packed, names, self.workers)) as packed:
            for batch in self.batches:
                start = time.perf_counter()
                prepared = _unpacked(next(packed), batch)
                yield replace(prepared, waiting_seconds=time.perf_counter() - start)

    def _packed(self, index: int) -> bytes:
        """A prepared batch as bytes; without the instances, which hold functions of their task."""
        batch = self.batches[index]
        with naming(_names(batch)):
            requests = [self.read(instance) for instance in batch]
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
            arrays = {name: _array(value) for name, value in inputs.items()}
            return pickle.dumps((documents, arrays, marks, seconds), pickle.HIGHEST_PROTOCOL)


def _unpacked(packed: bytes, batch: Sequence[Instance]) -> PreparedBatch:
    documents, arrays, marks, seconds = pickle.loads(packed)
    requests = [
        Request(instance, *document) for instance, document in zip(batch, documents, strict=True)
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
    """A document, or a part of it, with None for its images; lmms-eval scores without them too."""
    if isinstance(value, Image.Image):
        return None
    if isinstance(value, Mapping):
        return {name: _without_pictures(part) for name, part in value.items()}
    return [_without_pictures(part) for part in value] if isinstance(value, list) else value
