"""Checks that a processor fits its model: images, videos, slots, vocabulary, template.

Knows no benchmark.
"""

from typing import Any

import numpy as np
import torch
from jinja2 import TemplateError
from PIL import Image

from mustdrop.models.base import ModelAdapter
from mustdrop.models.frame_processors import VIDEO

PROBE = Image.new("RGB", (48, 32))  # not square, to detect a processor that does not crop
WORD = "word"


def require_fit(adapter: ModelAdapter, processor: Any) -> None:
    """Check that a processor fits its model, before any prompt is made.

    Args:
        adapter: Adapter of the model.
        processor: Processor loaded from the same folder.

    Raises:
        ValueError: If the processor lacks a field, or its images, slots, vocabulary or template do
            not fit the model; the message names the field.
    """
    for part in ("image_processor", "tokenizer"):
        if getattr(processor, part, None) is None:
            raise ValueError(
                f"the processor, {type(processor).__name__}, has no {part}: preprocessor_config."
                "json, processor_config.json or the tokenizer's files are missing"
            )
    _check_vocabulary(adapter, processor)
    _check_slots(adapter, processor)
    _check_template(processor, "image", processor.image_token)
    videos = getattr(processor, VIDEO, None)
    if videos is not None and videos.frames is not None:
        _check_video(adapter, processor)
        _check_template(processor, "video", processor.video_token)


def _check_vocabulary(adapter: ModelAdapter, processor: Any) -> None:
    tokenizer, token = processor.tokenizer, processor.image_token
    if hasattr(processor, "full_image_sequence"):  # Gemma 3's token of an image becomes others
        token = tokenizer.image_token
    ids = tokenizer.encode(token, add_special_tokens=False)
    if token not in tokenizer.get_vocab():
        raise ValueError(f"image_token: the tokenizer has no token {token!r}")
    expected = adapter.model.config.image_token_id
    if ids != [expected]:
        raise ValueError(
            f"image_token: {token!r} is token {ids[0]} of the tokenizer, but the model's "
            f"image_token_index is {expected}"
        )
    rows = adapter.model.get_input_embeddings().num_embeddings
    if len(tokenizer) > rows:
        raise ValueError(f"the tokenizer has {len(tokenizer)} tokens, but the model has {rows}")
    if tokenizer.pad_token_id is None:
        raise ValueError("pad_token: the tokenizer has none, so prompts cannot be padded")


def _check_slots(adapter: ModelAdapter, processor: Any) -> None:
    """Check the pixels and the slots of one image against the encoder and the language model."""
    expected = adapter.processor_fields
    given = {name: getattr(processor, name, None) for name in expected}
    for name, value in given.items():
        if value is None:
            raise ValueError(
                f"{name}: the processor has none; processor_config.json must set it to "
                f"{expected[name]!r}, to fit the model's config"
            )
    inputs = processor(text=[processor.image_token], images=[PROBE], return_tensors="pt")
    slots, cells = _check_inputs(adapter, inputs)
    if slots != cells:
        wrong = [
            f"{name} must be {expected[name]!r}, got {value!r}"
            for name, value in given.items()
            if value != expected[name]
        ]
        fields = f"{'; '.join(wrong)}: " if wrong else ""
        raise ValueError(
            f"{fields}the processor makes {slots} slots per image, but the model has "
            f"{cells} vision tokens per image"
        )


def _check_video(adapter: ModelAdapter, processor: Any) -> None:
    """Check the frames and the slots of one video."""
    count = processor.video_processor.frames
    # some processors write times into the prompt
    times = {
        "total_num_frames": count, "fps": 1.0, "duration": count,
        "frames_indices": list(range(count)),
    }  # fmt: skip
    inputs = processor(
        text=[processor.video_token], videos=[np.stack([np.asarray(PROBE)] * count)],
        video_metadata=[times], return_tensors="pt", do_sample_frames=False,
    )  # fmt: skip
    slots, cells = _check_inputs(adapter, inputs)
    if slots != cells:
        raise ValueError(
            f"the processor makes {slots} slots for a video of {count} frames, but the model has "
            f"{cells} vision tokens for it"
        )


def _check_inputs(adapter: ModelAdapter, inputs: Any) -> tuple[int, int]:
    """Numbers of slots and of vision tokens of a prompt, whose pixels have the encoder's size."""
    visual = adapter.visual_inputs(inputs)
    shown = [part for parts in visual.values() for part in parts]
    if adapter.facts.grid is not None:
        side = adapter.model.config.vision_config.image_size
        rows, columns = (side, side) if isinstance(side, int) else side
        height, width = shown[0].pixels[0].shape[-2:]
        if (height, width) != (rows, columns):
            raise ValueError(
                f"crop_size: the processor makes images of {width} x {height} pixels, but the "
                f"encoder needs {columns} x {rows} (see size, crop_size, do_resize and "
                "do_center_crop)"
            )
    slots = torch.isin(inputs["input_ids"], torch.tensor(list(visual))).sum()
    return int(slots), sum(len(part.cells) for part in shown)


def _check_template(processor: Any, kind: str, token: str) -> None:
    """Check that a message with an image or a video has one token for it, and its text."""
    if not processor.chat_template:
        raise ValueError("chat_template: the processor has none, so no prompt can be made")
    content = [{"type": kind, kind: PROBE}, {"type": "text", "text": WORD}]
    try:
        text = processor.apply_chat_template(
            [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
        )
    except (TemplateError, TypeError, KeyError) as error:
        raise ValueError(f"chat_template: {type(error).__name__}: {error}") from error
    if text.count(token) != 1 or WORD not in text:
        raise ValueError(
            f"chat_template: the prompt must contain one {token} and the question, but for "
            f"{'an' if kind == 'image' else 'a'} {kind} and the text {WORD!r} it is {text!r}"
        )
