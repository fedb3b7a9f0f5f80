"""Tiny random models of Gemma 3 and PaliGemma, whose images are squares of one size."""

from typing import Any

import transformers
from family_prompts import CLIP, IMAGE_TOKEN, TEXT, Family, Image, Prompts, pixels

from mustdrop.models import adapter_for

SIGLIP = {
    **{name: CLIP[name] for name in CLIP if name != "image_size"}, "vision_use_head": False,
    "model_type": "siglip_vision_model",
}  # fmt: skip


def gemma3(attention: str) -> Any:
    """Layers 0 to 4 see a window of 512 tokens, layer 5 all; 4 x 4 cells of 4 x 4 patches."""
    rope = {
        "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
        "full_attention": {"rope_type": "default", "rope_theta": 10000.0},
    }
    config = transformers.Gemma3Config(
        vision_config={**SIGLIP, "image_size": 64}, mm_tokens_per_image=16,
        text_config={**TEXT, "head_dim": 8, "sliding_window": 512, "query_pre_attn_scalar": 8,
                     "rope_parameters": rope},
        image_token_index=IMAGE_TOKEN, boi_token_index=2, eoi_token_index=3,
    )  # fmt: skip
    return transformers.Gemma3ForConditionalGeneration(config)


def paligemma(attention: str) -> Any:
    config = transformers.PaliGemmaConfig(
        vision_config={**SIGLIP, "image_size": 24, "projection_dim": 32}, projection_dim=32,
        text_config={**TEXT, "model_type": "gemma", "head_dim": 8}, image_token_index=IMAGE_TOKEN,
    )  # fmt: skip
    return transformers.PaliGemmaForConditionalGeneration(config)


def square_input(prompt: Prompts, image: Image) -> None:
    """Every picture becomes a square of one size."""
    side = prompt.config.vision_config.image_size
    prompt.add(pixel_values=pixels(side, 3, side, seed=prompt.generator).transpose(0, 1)[None])
    prompt.slots(IMAGE_TOKEN, adapter_for(prompt.model).image_tokens)


SQUARE_PROMPTS = (
    (3, Image(16, 16), 7),
    (2, Image(16, 16), 3, Image(24, 16), 12),
    (9, Image(16, 24), Image(16, 16), 4),
)
GEMMAS = {
    "gemma3": Family(gemma3, square_input, SQUARE_PROMPTS, packed=True, types="token_type_ids"),
    "paligemma": Family(
        paligemma, square_input, SQUARE_PROMPTS, packed=True, types="token_type_ids", marks=False
    ),
}
