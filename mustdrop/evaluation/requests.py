"""One document, ready to be asked, its picture named. Knows no model."""

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
from mustdrop.evaluation.image_controls import ImageControl, showing
from mustdrop.evaluation.lmms_eval_api import ChatMessages, Instance, Task


@dataclass(frozen=True, eq=False)
class Request:
    """What is asked.

    Attributes:
        instance: lmms-eval's.
        task: Whose document it is.
        doc_id: Its number there.
        doc: The document.
        chat: The conversation, with what is shown instead of its own pictures.
        options: How the task wants it answered.
        image: Names its own pictures; documents about one picture share the name. None without.
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

    def known(self, needs: Sequence[str]) -> list[dict[str, Any]]:
        """What a strategy has to be told of each picture."""
        return [{name: self.doc[name] for name in needs} for _ in pictures(self.chat)]


def read_request(
    instance: Instance, datasets: Mapping[str, Any], control: ImageControl | None, processor: Any
) -> Request:
    """Read an instance's document.

    Args:
        instance: Of a task that makes messages.
        datasets: Task -> split -> documents.
        control: What is shown instead of a document's own pictures; None: those.
        processor: The model's, whose size of a picture a control may need.

    Raises:
        DocumentError: If it cannot be read, holds what cannot be asked, or the control cannot be
            shown instead of its pictures.
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
    """Twelve digits that stand for the pixels of some pictures; None for none."""
    if not shown:
        return None
    digest = hashlib.blake2b(digest_size=6)
    for picture in shown:
        digest.update(f"{picture.mode} {picture.size}".encode())
        digest.update(picture.tobytes())
    return digest.hexdigest()
