"""Requests: a document with its conversation and image name. Knows nothing about models."""

import hashlib
from collections.abc import Mapping, Sequence
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
from mustdrop.evaluation.frame_cache import VideoReader
from mustdrop.evaluation.image_controls import ImageControl, showing
from mustdrop.evaluation.lmms_eval_api import ChatMessages, Instance, Task


@dataclass(frozen=True, eq=False)
class Request:
    """One document, ready for the model.

    Attributes:
        instance: lmms-eval's instance.
        doc: Fields of the document.
        chat: Conversation, with the images that the model sees.
        image: Name of the document's own images and videos, equal for documents with the same
            ones; None without images.
    """

    instance: Instance
    doc: Mapping[str, Any]
    chat: ChatMessages
    image: str | None

    @property
    def task(self) -> Task:
        """Task of the document."""
        return self.instance.arguments[1].__self__

    @property
    def doc_id(self) -> int:
        """Index of the document in the task."""
        return self.instance.arguments[3]

    @property
    def options(self) -> Mapping[str, Any]:
        """Generation options of the task."""
        return self.instance.arguments[2]

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
    instance: Instance,
    datasets: Mapping[str, Any],
    control: ImageControl | None,
    processor: Any,
    videos: VideoReader | None = None,
) -> Request:
    """Read the document of an instance.

    Args:
        instance: Instance of a task that makes messages.
        datasets: Task -> split -> documents.
        control: Image control; None shows the images of the document.
        processor: Processor of the model; a control may need its image size.
        videos: Reader of videos; None: they are unsupported content.

    Raises:
        UnreadableDocument: If an image or a video cannot be read.
        DocumentError: If the document cannot be read, holds unsupported content, or the control
            cannot replace its images.
    """
    _, to_messages, _, doc_id, task, split = instance.arguments
    docs = datasets[task][split]
    doc, chat = read_document(task, docs, doc_id, to_messages, videos)
    with naming(document_name(task, doc_id)):
        name = image_name(pictures(chat))
        if control is not None:
            others = partial(other_pictures, task, docs, doc_id, to_messages, videos)
            chat = showing(chat, control, processor, others)
    return Request(instance, doc, chat, name)


def image_name(shown: Sequence[Image.Image]) -> str | None:
    """Hash of the pixels of some images or frames, 12 hexadecimal digits; None without any."""
    if not shown:
        return None
    digest = hashlib.blake2b(digest_size=6)
    for picture in shown:
        digest.update(f"{picture.mode} {picture.size}".encode())
        digest.update(picture.tobytes())
    return digest.hexdigest()
