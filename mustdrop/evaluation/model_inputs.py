"""Inputs of a model for conversations, by its processor. Knows nothing about dropping."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import PreTrainedModel

from mustdrop.evaluation.chat import naming, still_images, videos_of
from mustdrop.evaluation.lmms_eval_api import ChatMessages
from mustdrop.evaluation.videos import VideoFrames
from mustdrop.models.inputs import require_images


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
    """Inputs of ``generate`` in main memory: padded prompts with their images and videos.

    Args:
        processor: Processor of the model.
        chats: Conversations, one per prompt.
        documents: Names of the documents in messages, from :func:`document_name`.

    Raises:
        DocumentError: If a document cannot be prepared; the message names it.
    """
    names = list(documents) or [f"prompt {index}" for index in range(len(chats))]
    prompts = []
    for name, chat in zip(names, chats, strict=True):
        with naming(name):
            text = prompt_text(processor, chat)
            images = [image.convert("RGB") for image in still_images(chat)]
            require_images(processor, images)
            prompts.append((text, images, videos_of(chat)))
    with naming(", ".join(names)):
        try:
            return _processed(processor, prompts)
        except Exception:
            # Processing each document alone finds the failing document.
            for name, prompt in zip(names, prompts, strict=True):
                with naming(name):
                    _processed(processor, [prompt])
            raise


def _processed(
    processor: Any, prompts: Sequence[tuple[str, list[Image.Image], list[VideoFrames]]]
) -> Any:
    """Inputs of prompts, each with its text, images and videos."""
    texts = [text for text, _, _ in prompts]
    # A list for each prompt: of a flat list, some processors refuse a batch and others crop the
    # images of a prompt as if each had a prompt of its own.
    images = [shown for _, shown, _ in prompts]
    videos = [video for _, _, shown in prompts for video in shown]
    options = _video_options(processor, videos) if videos else {}
    start = processor.tokenizer.bos_token
    if start and all(text.startswith(start) for text in texts):  # from the chat template
        options["add_special_tokens"] = False
    inputs = processor(
        text=texts, images=images if any(images) else None, padding=True, padding_side="left",
        return_tensors="pt", **options,
    )  # fmt: skip
    # PaliGemma's processor returns labels that mask all of a prompt; they serve training alone
    return {name: value for name, value in inputs.items() if name != "labels"}


def _video_options(processor: Any, videos: Sequence[VideoFrames]) -> dict[str, Any]:
    """Options of a processor for the chosen frames of videos.

    Times are given as indices at the file's mean rate, from which processors compute seconds again;
    so they are right for a file whose rate varies, too.
    """
    if getattr(processor, "video_processor", None) is None:
        raise ValueError(f"{type(processor).__name__} reads no videos")
    arrays = [
        np.stack([np.asarray(frame.convert("RGB")) for frame in video.frames]) for video in videos
    ]
    metadata = [
        {
            "total_num_frames": video.total, "fps": video.rate,
            "duration": video.total / video.rate,
            "frames_indices": [second * video.rate for second in video.seconds],
            "height": array.shape[1], "width": array.shape[2],
        }
        for video, array in zip(videos, arrays, strict=True)
    ]  # fmt: skip
    return {"videos": arrays, "video_metadata": metadata, "do_sample_frames": False}
