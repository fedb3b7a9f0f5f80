"""A document as a model is asked it: conversation, pictures, inputs. Knows no dropping."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from PIL import Image
from transformers import PreTrainedModel

from mustdrop.evaluation.lmms_eval_api import ChatMessages
from mustdrop.evaluation.pictures import eight_bits, with_eight_bits
from mustdrop.evaluation.process import whole_pictures


class DocumentError(ValueError):
    """A document cannot be read, prepared or scored; the message names benchmark and document."""


@contextmanager
def naming(document: str) -> Iterator[None]:
    """A context whose errors say which document they belong to; half a picture is one of them.

    Args:
        document: Its name, as :func:`document_name` makes it.

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
    """What messages call a document."""
    return f"document {doc_id} of {task}"


def read_document(
    task: str, docs: Any, doc_id: int, to_messages: Callable[[Any], Any]
) -> tuple[Any, ChatMessages]:
    """A document and its conversation, with pictures that are whole and have eight bits a channel.

    Args:
        task: The benchmark's name.
        docs: All its documents.
        doc_id: Index of the document.
        to_messages: The benchmark's own function from a document to messages.

    Raises:
        DocumentError: If it cannot be read, or holds what cannot be asked.
    """
    with naming(document_name(task, doc_id)):
        doc = with_eight_bits(docs[doc_id])
        return doc, read_chat(task, doc_id, to_messages(doc))


def read_chat(task: str, doc_id: int, messages: Any) -> ChatMessages:
    """A document's conversation, its pictures decoded.

    Raises:
        DocumentError: If it holds what cannot be asked: video, sound, an image without pixels, half
            an image, one whose brightness has no range.
    """
    with naming(document_name(task, doc_id)):
        chat = ChatMessages(messages=messages)
        _, videos, sounds = chat.extract_media()
        if videos or sounds:
            raise ValueError("video or sound; images alone are supported")
        shown = [eight_bits(image) for image in pictures(chat)]
        return replaced(chat, shown) if shown else chat


def pictures(chat: ChatMessages) -> list[Image.Image]:
    """Its images, those given by their path too, in the order of the conversation."""
    given = chat.extract_media()[0]
    return [Image.open(image) if isinstance(image, str) else image for image in given]


def other_pictures(
    task: str, docs: Any, doc_id: int, to_messages: Callable[[Any], Any]
) -> Iterator[list[Image.Image]]:
    """Those of each other document, from the next one on, round to the one before."""
    for place in range(doc_id + 1, doc_id + len(docs)):
        _, chat = read_document(task, docs, place % len(docs), to_messages)
        yield pictures(chat)


def replaced(chat: ChatMessages, shown: Sequence[Image.Image]) -> ChatMessages:
    """The conversation with other pictures in its pictures' places; none: without those places."""
    left = iter(shown)
    turns = []
    for turn in chat.messages:
        parts = []
        for part in turn.content:
            if part.type != "image":
                parts.append(part)
            elif shown:
                parts.append(part.model_copy(update={"url": next(left)}))
        turns.append(turn.model_copy(update={"content": parts}))
    return ChatMessages(messages=turns)


def shorter_side(processor: Any) -> int:
    """Pixels of a picture's shorter side as the model sees it."""
    size = processor.image_processor.size
    return size["shortest_edge"] if "shortest_edge" in size else min(size["height"], size["width"])


def question(chat: ChatMessages) -> str:
    """Its words."""
    return "\n".join(
        part.text for turn in chat.messages for part in turn.content if part.type == "text"
    )


def prompt_inputs(
    model: PreTrainedModel,
    processor: Any,
    chats: Sequence[ChatMessages],
    documents: Sequence[str] = (),
) -> Mapping[str, Any]:
    """What ``generate`` takes: prompts, padded on the left, with their images.

    Args:
        model: Says where the inputs go.
        processor: The model's.
        chats: The conversations.
        documents: What messages call each of them, as :func:`document_name` makes it.

    Raises:
        DocumentError: If one of them cannot be prepared; it names that one.
    """
    names = list(documents) or [f"prompt {index}" for index in range(len(chats))]
    texts, images = [], []
    for name, chat in zip(names, chats, strict=True):
        with naming(name):
            texts.append(
                processor.apply_chat_template(
                    chat.to_hf_messages(), tokenize=False, add_generation_prompt=True
                )
            )
            images.append([image.convert("RGB") for image in pictures(chat)])
    with naming(", ".join(names)):
        try:
            inputs = _processed(processor, texts, images)
        except Exception:
            # each alone says which one it was
            for name, text, shown in zip(names, texts, images, strict=True):
                with naming(name):
                    _processed(processor, [text], [shown])
            raise
    # Pixels keep their float32, which encoders cast themselves: random draws are keyed by them, and
    # must not depend on the model's dtype.
    return inputs.to(model.device)


def _processed(
    processor: Any, texts: Sequence[str], images: Sequence[Sequence[Image.Image]]
) -> Any:
    flat = [image for shown in images for image in shown]
    return processor(
        text=list(texts), images=flat or None, padding=True, padding_side="left",
        return_tensors="pt",
    )  # fmt: skip
