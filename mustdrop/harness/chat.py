"""A document as a model is asked it: conversation, pictures, inputs. Knows no dropping."""

from collections.abc import Mapping, Sequence
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
    return inputs.to(model.device, model.dtype)
