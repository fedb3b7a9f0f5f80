"""A document as a model is asked it: conversation, pictures, inputs. Knows no dropping."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from lmms_eval.protocol import ChatMessages
from PIL import Image
from transformers import PreTrainedModel


def read_chat(task: str, doc_id: int, messages: Any) -> ChatMessages:
    """A document's conversation.

    Raises:
        ValueError: If it holds what cannot be asked: video, sound, an image without pixels.
    """
    chat = ChatMessages(messages=messages)
    _, videos, sounds = chat.extract_media()
    where = f"document {doc_id} of {task}"
    if videos or sounds:
        raise ValueError(f"{where} holds video or sound; images alone are supported")
    for image in pictures(chat):
        if 0 in image.size:
            raise ValueError(f"{where} has an empty image, of size {image.size}")
    return chat


def pictures(chat: ChatMessages) -> list[Image.Image]:
    """Its images, those given by their path too, in the order of the conversation."""
    given = chat.extract_media()[0]
    return [Image.open(image) if isinstance(image, str) else image for image in given]


def other_pictures(
    task: str, docs: Any, doc_id: int, to_messages: Callable[[Any], Any]
) -> Iterator[list[Image.Image]]:
    """Those of each other document, from the next one on, round to the one before."""
    for place in range(doc_id + 1, doc_id + len(docs)):
        other = place % len(docs)
        yield pictures(read_chat(task, other, to_messages(docs[other])))


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
    model: PreTrainedModel, processor: Any, chats: Sequence[ChatMessages]
) -> Mapping[str, Any]:
    """What ``generate`` takes: prompts, padded on the left, with their images."""
    texts = [
        processor.apply_chat_template(
            chat.to_hf_messages(), tokenize=False, add_generation_prompt=True
        )
        for chat in chats
    ]
    images = [image.convert("RGB") for chat in chats for image in pictures(chat)]
    inputs = processor(
        text=texts, images=images or None, padding=True, padding_side="left", return_tensors="pt"
    )
    # Pixels keep their float32, which encoders cast themselves: random draws are keyed by them, and
    # must not depend on the model's dtype.
    return inputs.to(model.device)
