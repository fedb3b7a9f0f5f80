"""Whether a processor fits its model: pictures, slots, vocabulary, template. Knows no benchmark."""

from typing import Any

from jinja2 import TemplateError
from PIL import Image

from mustdrop.models.base import ModelAdapter

PROBE = Image.new("RGB", (48, 32))  # not square, so that a processor that does not crop shows it
WORD = "word"


def require_fit(adapter: ModelAdapter, processor: Any) -> None:
    """Check a processor against its model before anything is asked.

    Args:
        adapter: The model's.
        processor: Loaded from the same folder.

    Raises:
        ValueError: If it lacks a field, or its pictures, slots, vocabulary or template are not
            those that the model takes; the message names the field.
    """
    for part in ("image_processor", "tokenizer"):
        if getattr(processor, part, None) is None:
            raise ValueError(
                f"the processor, {type(processor).__name__}, has no {part}: preprocessor_config."
                "json, processor_config.json or the tokenizer's files are missing"
            )
    _check_vocabulary(adapter, processor)
    _check_slots(adapter, processor)
    _check_template(processor)


def _check_vocabulary(adapter: ModelAdapter, processor: Any) -> None:
    tokenizer, token = processor.tokenizer, processor.image_token
    ids = tokenizer.encode(token, add_special_tokens=False)
    if token not in tokenizer.get_vocab():
        raise ValueError(f"image_token: the tokenizer has no token {token!r}")
    if ids != list(adapter.vision_token_ids):
        raise ValueError(
            f"image_token: {token!r} is token {ids[0]} of the tokenizer, but the model's "
            f"image_token_index is {adapter.vision_token_ids[0]}"
        )
    rows = adapter.model.get_input_embeddings().num_embeddings
    if len(tokenizer) > rows:
        raise ValueError(f"the tokenizer has {len(tokenizer)} tokens, but the model has {rows}")
    if tokenizer.pad_token_id is None:
        raise ValueError("pad_token: the tokenizer has none, so prompts cannot be padded")


def _check_slots(adapter: ModelAdapter, processor: Any) -> None:
    """Compare what one picture becomes with what the encoder and the language model take."""
    config = adapter.model.config
    vision = config.vision_config
    expected = {
        "patch_size": vision.patch_size,
        "vision_feature_select_strategy": config.vision_feature_select_strategy,
        "num_additional_image_tokens": int(adapter.facts.has_cls),
    }
    given = {name: getattr(processor, name, None) for name in expected}
    for name, value in given.items():
        if value is None:
            raise ValueError(
                f"{name}: the processor has none; processor_config.json must say "
                f"{expected[name]!r}, as the model's config does"
            )
    inputs = processor(text=[processor.image_token], images=[PROBE], return_tensors="pt")
    height, width = inputs["pixel_values"].shape[-2:]
    if (height, width) != (vision.image_size, vision.image_size):
        raise ValueError(
            f"crop_size: the processor makes pictures of {width} x {height} pixels, but the "
            f"encoder takes {vision.image_size} x {vision.image_size} (see size, crop_size, "
            "do_resize and do_center_crop)"
        )
    slots = int(adapter.vision_mask(inputs["input_ids"]).sum())
    if slots != adapter.slots_per_image:
        wrong = [
            f"{name} is {value!r} where {expected[name]!r} fits"
            for name, value in given.items()
            if value != expected[name]
        ]
        raise ValueError(
            f"{'; '.join(wrong) or 'the processor'}: it makes {slots} slots of a picture, but the "
            f"model has {adapter.slots_per_image} vision tokens"
        )


def _check_template(processor: Any) -> None:
    if not processor.chat_template:
        raise ValueError("chat_template: the processor has none, so there is no prompt to ask")
    content = [{"type": "image", "image": PROBE}, {"type": "text", "text": WORD}]
    try:
        text = processor.apply_chat_template(
            [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
        )
    except (TemplateError, TypeError, KeyError) as error:
        raise ValueError(f"chat_template: {type(error).__name__}: {error}") from error
    count = text.count(processor.image_token)
    if count != 1 or WORD not in text:
        raise ValueError(
            f"chat_template: it must place one {processor.image_token} and the question, but of a "
            f"picture and {WORD!r} it makes {text!r}"
        )
