"""Conversation, images and model inputs of a document. Knows nothing about dropping."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from PIL import Image
from transformers import PreTrainedModel

from mustdrop.evaluation.lmms_eval_api import ChatMessages
from mustdrop.evaluation.pictures import eight_bits, with_eight_bits
from mustdrop.evaluation.process import whole_pictures


class DocumentError(ValueError):
    """A document cannot be read, prepared or scored; the message names benchmark and document."""


@contextmanager
def naming(document: str) -> Iterator[None]:
    """A context whose errors name the document; a truncated image is an error inside it.

    Args:
        document: Name of the document, from :func:`document_name`.

    Raises:
        DocumentError: For every error inside.
    """
    try:
        with whole_pictures():
            yield
    except DocumentError:
        raise
    # A boundary: pictures, parquet files, lmms-eval's tasks and templates raise errors of any type.
    except Exception as error:
        reason = " ".join(str(error).split())
        if not isinstance(error, ValueError) or not reason:
            reason = f"{type(error).__name__}: {reason}".removesuffix(": ")
        raise DocumentError(f"{document}: {reason}") from error


def document_name(task: str, doc_id: int) -> str:
    """Name of a document in messages."""
    return f"document {doc_id} of {task}"


def read_document(
    task: str, docs: Any, doc_id: int, to_messages: Callable[[Any], Any]
) -> tuple[Any, ChatMessages]:
    """A document and its conversation, with complete images of eight bits a channel.

    Args:
        task: Name of the benchmark.
        docs: All documents of the benchmark.
        doc_id: Index of the document.
        to_messages: Function of the benchmark that turns a document into messages.

    Raises:
        DocumentError: If the document cannot be read or holds unsupported content.
    """
    with naming(document_name(task, doc_id)):
        doc = with_eight_bits(docs[doc_id])
        return doc, read_chat(task, doc_id, to_messages(doc))


def read_chat(task: str, doc_id: int, messages: Any) -> ChatMessages:
    """Conversation of a document, with its images decoded.

    Raises:
        DocumentError: If it holds unsupported content: video, sound, an image without pixels, a
            truncated image, or an image whose brightness has no fixed range.
    """
    with naming(document_name(task, doc_id)):
        chat = ChatMessages(messages=messages)
        _, videos, sounds = chat.extract_media()
        if videos or sounds:
            raise ValueError("video or sound is not supported, only images")
        decoded = [eight_bits(image) for image in pictures(chat)]
        return replaced(chat, decoded) if decoded else chat


def pictures(chat: ChatMessages) -> list[Image.Image]:
    """Images of a conversation in its order; images given by their path are opened."""
    images = chat.extract_media()[0]
    return [Image.open(image) if isinstance(image, str) else image for image in images]


def other_pictures(
    task: str, docs: Any, doc_id: int, to_messages: Callable[[Any], Any]
) -> Iterator[list[Image.Image]]:
    """Images of all other documents: from the next one to the last, then from the first one."""
    for index in range(doc_id + 1, doc_id + len(docs)):
        _, chat = read_document(task, docs, index % len(docs), to_messages)
        yield pictures(chat)


def replaced(chat: ChatMessages, shown: Sequence[Image.Image]) -> ChatMessages:
    """The conversation with its images replaced in order; without images if ``shown`` is empty."""
    remaining = iter(shown)
    turns = []
    for turn in chat.messages:
        parts = []
        for part in turn.content:
            if part.type != "image":
                parts.append(part)
            elif shown:
                parts.append(part.model_copy(update={"url": next(remaining)}))
        turns.append(turn.model_copy(update={"content": parts}))
    return ChatMessages(messages=turns)


def question(chat: ChatMessages) -> str:
    """Text of a conversation."""
    return "\n".join(
        part.text for turn in chat.messages for part in turn.content if part.type == "text"
    )


def prompt_text(processor: Any, chat: ChatMessages) -> str:
    """Text of a conversation's prompt, with the tags of its images."""
    return processor.apply_chat_template(
        chat.to_hf_messages(), tokenize=False, add_generation_prompt=True
    )


def prompt_inputs(
    model: PreTrainedModel,
    processor: Any,
    chats: Sequence[ChatMessages],
    documents: Sequence[str] = (),
) -> Mapping[str, Any]:
    """Inputs of ``generate`` on the device of a model; see :func:`processor_inputs`."""
    return on_device(model, processor_inputs(processor, chats, documents))


def on_device(model: PreTrainedModel, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Inputs with their tensors on the device of a model.

    Pixels keep their float32, which encoders cast themselves: random draws are keyed by them, and
    must not depend on the model's dtype.
    """
    return {
        name: value.to(model.device) if isinstance(value, torch.Tensor) else value
        for name, value in inputs.items()
    }


def processor_inputs(
    processor: Any, chats: Sequence[ChatMessages], documents: Sequence[str] = ()
) -> Mapping[str, Any]:
    """Inputs of ``generate`` in main memory: prompts, padded on the left, with their images.

    Args:
        processor: Processor of the model.
        chats: Conversations, one per prompt.
        documents: Names of the documents in messages, from :func:`document_name`.

    Raises:
        DocumentError: If a document cannot be prepared; the message names it.
    """
    names = list(documents) or [f"prompt {index}" for index in range(len(chats))]
    texts, images = [], []
    for name, chat in zip(names, chats, strict=True):
        with naming(name):
            texts.append(prompt_text(processor, chat))
            images.append([image.convert("RGB") for image in pictures(chat)])
    with naming(", ".join(names)):
        try:
            return _processed(processor, texts, images)
        except Exception:
            # Processing each document alone finds the failing document.
            for name, text, shown in zip(names, texts, images, strict=True):
                with naming(name):
                    _processed(processor, [text], [shown])
            raise


def _processed(
    processor: Any, texts: Sequence[str], images: Sequence[Sequence[Image.Image]]
) -> Any:
    # A list for each prompt: of a flat list, some processors refuse a batch and others crop the
    # images of a prompt as if each had a prompt of its own.
    nested = [list(shown) for shown in images] if any(images) else None
    return processor(
        text=list(texts), images=nested, padding=True, padding_side="left", return_tensors="pt"
    )
