"""Conversation of a document with its images and videos. Knows no model and no processor.

A video counts as its frames: wherever images of a conversation are listed or replaced, its frames
stand among them.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from PIL import Image

from mustdrop.evaluation.frame_cache import VideoReader
from mustdrop.evaluation.lmms_eval_api import ChatMessages
from mustdrop.evaluation.pictures import UnreadableImage, decoding, eight_bits, with_eight_bits
from mustdrop.evaluation.process import whole_pictures
from mustdrop.evaluation.videos import UnreadableVideo, VideoFrames


class DocumentError(ValueError):
    """A document cannot be read, prepared or scored; the message names benchmark and document."""


class UnreadableDocument(DocumentError):
    """A document whose image or video cannot be read; a run leaves it out."""


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
        unreadable = isinstance(error, UnreadableVideo | UnreadableImage)
        kind = UnreadableDocument if unreadable else DocumentError
        raise kind(f"{document}: {reason}") from error


def document_name(task: str, doc_id: int) -> str:
    """Name of a document in messages."""
    return f"document {doc_id} of {task}"


def read_document(
    task: str,
    docs: Any,
    doc_id: int,
    to_messages: Callable[[Any], Any],
    videos: VideoReader | None = None,
) -> tuple[Any, ChatMessages]:
    """A document and its conversation, with complete images of eight bits a channel.

    Args:
        task: Name of the benchmark.
        docs: All documents of the benchmark.
        doc_id: Index of the document.
        to_messages: Function of the benchmark that turns a document into messages.
        videos: Reader of videos; None: a video is unsupported content.

    Raises:
        UnreadableDocument: If an image or a video cannot be read.
        DocumentError: If the document cannot be read or holds unsupported content.
    """
    with naming(document_name(task, doc_id)):
        with decoding():
            doc = with_eight_bits(docs[doc_id])
            messages = to_messages(doc)
        return doc, read_chat(task, doc_id, messages, videos)


def read_chat(
    task: str, doc_id: int, messages: Any, videos: VideoReader | None = None
) -> ChatMessages:
    """Conversation of a document, with its images and videos decoded.

    Raises:
        UnreadableDocument: If an image or a video cannot be read.
        DocumentError: If it holds unsupported content: sound, a video without a reader, an image
            without pixels, or an image whose brightness has no fixed range.
    """
    with naming(document_name(task, doc_id)):
        chat = ChatMessages(messages=messages)
        if chat.extract_media()[2]:
            raise ValueError("sound is not supported, only images and videos")
        chat = _with_parts(chat, lambda part: _decoded(part, videos) if _is_video(part) else part)
        with decoding():
            decoded = [eight_bits(image) for image in pictures(chat)]
        return replaced(chat, decoded) if decoded else chat


def _decoded(part: Any, videos: VideoReader | None) -> Any:
    """A video part of a conversation with its chosen frames in place of its path."""
    if videos is None:
        raise ValueError(
            "a video needs model.frames, the number of frames that the model sees, and a model "
            "that reads videos"
        )
    if not isinstance(part.url, str | Path):
        raise ValueError(f"a video must be the path of a file, got {type(part.url).__name__}")
    if part.start_time is not None or part.end_time is not None:
        raise ValueError("a part of a video (start_time, end_time) is not supported: cut the file")
    return part.model_copy(update={"url": videos.read(Path(part.url))})


def _is_video(part: Any) -> bool:
    return part.type == "video"


def _with_parts(chat: ChatMessages, change: Callable[[Any], Any]) -> ChatMessages:
    """The conversation with its parts changed; a part that becomes None is left out."""
    turns = []
    for turn in chat.messages:
        parts = [new for part in turn.content if (new := change(part)) is not None]
        turns.append(turn.model_copy(update={"content": parts}))
    return ChatMessages(messages=turns)


def pictures(chat: ChatMessages) -> list[Image.Image]:
    """Images of a conversation in its order, with the frames of its videos among them.

    Images given by their path are opened.

    Raises:
        UnreadableImage: If a file of an image cannot be read.
    """
    images: list[Image.Image] = []
    for part in _visual_parts(chat):
        if _is_video(part):
            images += part.url.frames
        else:
            images.append(_opened(part.url) if isinstance(part.url, str) else part.url)
    return images


def _opened(file: str) -> Image.Image:
    with decoding(f"the image {file}"):
        picture = Image.open(file)
        picture.load()
        return picture


def video_ranges(chat: ChatMessages) -> list[range]:
    """Indices in :func:`pictures` of the frames of each video."""
    ranges, first = [], 0
    for part in _visual_parts(chat):
        count = len(part.url.frames) if _is_video(part) else 1
        if _is_video(part):
            ranges.append(range(first, first + count))
        first += count
    return ranges


def visual_inputs(chat: ChatMessages) -> list[list[Image.Image]]:
    """Images of each image (one) and each video (its frames) of a conversation."""
    images = iter(pictures(chat))
    counts = [len(part.url.frames) if _is_video(part) else 1 for part in _visual_parts(chat)]
    return [list(islice(images, count)) for count in counts]


def still_images(chat: ChatMessages) -> list[Image.Image]:
    """Images of a conversation that are no frames of a video."""
    return pictures(_with_parts(chat, lambda part: None if _is_video(part) else part))


def videos_of(chat: ChatMessages) -> list[VideoFrames]:
    """Videos of a conversation that was read."""
    return chat.extract_media()[1]


def _visual_parts(chat: ChatMessages) -> list[Any]:
    return [
        part for turn in chat.messages for part in turn.content if part.type in ("image", "video")
    ]


def other_pictures(
    task: str,
    docs: Any,
    doc_id: int,
    to_messages: Callable[[Any], Any],
    videos: VideoReader | None = None,
) -> Iterator[list[Image.Image]]:
    """Images of all other documents: from the next one to the last, then from the first one.

    A document whose image or video cannot be read is left out.
    """
    others = (index % len(docs) for index in range(doc_id + 1, doc_id + len(docs)))
    return map(pictures, _readable(others, task, docs, to_messages, videos))


def all_visual_inputs(
    task: str, docs: Any, to_messages: Callable[[Any], Any], videos: VideoReader | None = None
) -> Iterator[list[list[Image.Image]]]:
    """Images and videos of all documents; one that cannot be read is left out."""
    return map(visual_inputs, _readable(range(len(docs)), task, docs, to_messages, videos))


def _readable(
    indices: Iterable[int],
    task: str,
    docs: Any,
    to_messages: Callable[[Any], Any],
    videos: VideoReader | None,
) -> Iterator[ChatMessages]:
    """Conversations of the documents that can be read."""
    for index in indices:
        try:
            _, chat = read_document(task, docs, index, to_messages, videos)
        except UnreadableDocument:
            continue
        yield chat


def replaced(chat: ChatMessages, shown: Sequence[Image.Image]) -> ChatMessages:
    """The conversation with its images and frames replaced in order, all or none of them."""
    remaining = iter(shown)

    def changed(part: Any) -> Any:
        if part.type not in ("image", "video"):
            return part
        if not shown:
            return None
        if _is_video(part):
            frames = list(islice(remaining, len(part.url.frames)))
            return part.model_copy(update={"url": replace(part.url, frames=frames)})
        return part.model_copy(update={"url": next(remaining)})

    return _with_parts(chat, changed)


def question(chat: ChatMessages) -> str:
    """Text of a conversation."""
    return "\n".join(
        part.text for turn in chat.messages for part in turn.content if part.type == "text"
    )
