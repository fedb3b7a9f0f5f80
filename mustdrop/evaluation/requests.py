"""Requests: a document with its conversation and image name. Knows nothing about models."""

import hashlib
import json
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from PIL import Image

from mustdrop.evaluation.chat import (
    document_name,
    naming,
    other_pictures,
    pictures,
    read_document,
)
from mustdrop.evaluation.image_controls import ImageControl, showing
from mustdrop.evaluation.lmms_eval_api import ChatMessages, Instance, Task


@dataclass(frozen=True, eq=False)
class Request:
    """One document, ready for the model.

    Attributes:
        instance: lmms-eval's instance.
        task: Task of the document.
        doc_id: Index of the document in the task.
        doc: Fields of the document.
        chat: Conversation, with the images that the model sees.
        options: Generation options of the task.
        image: Name of the document's own images, equal for documents with the same images; None
            without images.
    """

    instance: Instance
    task: Task
    doc_id: int
    doc: Mapping[str, Any]
    chat: ChatMessages
    options: Mapping[str, Any]
    image: str | None

    @property
    def name(self) -> str:
        """Name of the document in messages."""
        return document_name(self.task.config.task, self.doc_id)

    @property
    def target(self) -> Any:
        """Patches that the question is about, where the task marks them; else None."""
        return marked_target(self.task, self.doc)

    def annotations(self, names: Sequence[str]) -> list[dict[str, Any]]:
        """The named fields of the document, repeated for each image."""
        return [{name: self.doc[name] for name in names} for _ in pictures(self.chat)]


def marked_target(task: Task, doc: Mapping[str, Any]) -> Any:
    """Patches of a document that target recall uses; None if its task names no such field.

    A task names the field by ``recall_mark`` in the metadata of its lmms-eval config.
    """
    metadata = task.config.metadata
    mark = metadata.get("recall_mark") if isinstance(metadata, Mapping) else None
    return None if mark is None else doc[mark]


def read_request(
    instance: Instance, datasets: Mapping[str, Any], control: ImageControl | None, processor: Any
) -> Request:
    """Read the document of an instance.

    Args:
        instance: Instance of a task that makes messages.
        datasets: Task -> split -> documents.
        control: Image control; None shows the images of the document.
        processor: Processor of the model; a control may need its image size.

    Raises:
        DocumentError: If the document cannot be read, holds unsupported content, or the control
            cannot replace its images.
    """
    _, to_messages, options, doc_id, task, split = instance.arguments
    docs = datasets[task][split]
    doc, chat = read_document(task, docs, doc_id, to_messages)
    with naming(document_name(task, doc_id)):
        name = image_name(pictures(chat))
        if control is not None:
            others = partial(other_pictures, task, docs, doc_id, to_messages)
            chat = showing(chat, control, processor, others)
    return Request(instance, to_messages.__self__, doc_id, doc, chat, options, name)


def image_name(shown: Sequence[Image.Image]) -> str | None:
    """Hash of the pixels of some images, 12 hexadecimal digits; None without images."""
    if not shown:
        return None
    digest = hashlib.blake2b(digest_size=6)
    for picture in shown:
        digest.update(f"{picture.mode} {picture.size}".encode())
        digest.update(picture.tobytes())
    return digest.hexdigest()


def batched(
    requests: Sequence[Instance], answered: Container[int], size: int
) -> Iterator[list[Instance]]:
    """Batches of unanswered requests with equal options, in the order of the documents.

    Args:
        requests: Instances of tasks that make messages.
        answered: Documents that are not answered again.
        size: Largest number of instances of a batch.
    """
    groups: dict[str, list[Instance]] = {}
    for instance in sorted(requests, key=lambda instance: instance.arguments[3]):
        _, _, options, doc_id, *_ = instance.arguments
        if doc_id not in answered:
            groups.setdefault(json.dumps(options, sort_keys=True), []).append(instance)
    for group in groups.values():
        for start in range(0, len(group), size):
            yield group[start : start + size]
