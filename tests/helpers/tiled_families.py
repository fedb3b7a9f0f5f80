"""Tiny random models of families that cut images into tiles and join the patches of a cell."""

from typing import Any

import torch
import transformers
from family_prompts import CLIP, IMAGE_TOKEN, TEXT, Family, Image, Prompts, Video, pixels


def internvl(attention: str) -> Any:
    config = transformers.InternVLConfig(
        vision_config=transformers.InternVLVisionConfig(
            **{**CLIP, "image_size": [32, 32], "patch_size": [4, 4]}, layer_scale_init_value=1.0
        ),
        text_config=transformers.Qwen2Config(**TEXT), image_token_id=IMAGE_TOKEN,
        image_seq_length=16,
    )  # fmt: skip
    return transformers.InternVLForConditionalGeneration(config)


def internvl_input(prompt: Prompts, part: Image | Video) -> None:
    """Tiles of 16 x 16 pixels and, behind several, the whole; frames stand apart in the text."""
    side, rows, columns = 32, -(-part[-2] // 16), -(-part[-1] // 16)
    tiles = rows * columns + (rows * columns > 1) if isinstance(part, Image) else 1
    for number in range(part.frames if isinstance(part, Video) else 1):
        if number:
            prompt.text(2)
        drawn = [pixels(side, 3, side, seed=prompt.generator).transpose(0, 1) for _ in range(tiles)]
        prompt.add(pixel_values=torch.stack(drawn))
        prompt.slots(IMAGE_TOKEN, tiles * 16)


def smolvlm(attention: str) -> Any:
    config = transformers.SmolVLMConfig(
        vision_config={**CLIP, "image_size": 32}, text_config=transformers.LlamaConfig(**TEXT),
        image_token_id=IMAGE_TOKEN, scale_factor=2, pad_token_id=0,
    )  # fmt: skip
    return transformers.SmolVLMForConditionalGeneration(config)


def idefics3(attention: str) -> Any:
    config = transformers.Idefics3Config(
        vision_config={**CLIP, "image_size": 48}, text_config=transformers.LlamaConfig(**TEXT),
        image_token_id=IMAGE_TOKEN, scale_factor=3, pad_token_id=0,
    )  # fmt: skip
    return transformers.Idefics3ForConditionalGeneration(config)


def idefics_input(prompt: Prompts, part: Image | Video) -> None:
    """Tiles of 16 x 16 pixels and, behind several, the whole; each stands apart in the text."""
    side, rows, columns = (
        prompt.config.vision_config.image_size, -(-part[-2] // 16), -(-part[-1] // 16),
    )  # fmt: skip
    tiles = rows * columns + (rows * columns > 1)
    for number in range(part.frames if isinstance(part, Video) else tiles):
        if number:
            prompt.text(2)
        drawn = pixels(side, 3, side, seed=prompt.generator).transpose(0, 1)
        prompt.add(pixel_values=drawn[None])
        prompt.slots(IMAGE_TOKEN, (side // 4 // prompt.config.scale_factor) ** 2)


TILES = (
    (3, Image(16, 32), 7),
    (2, Image(16, 16), 3, Image(32, 32), 12),
    (9, Video(2, 16, 16), 2, Image(32, 16), 4),
)
TILED = {
    "idefics3": Family(idefics3, idefics_input, TILES, by_prompt=True),
    "smolvlm": Family(smolvlm, idefics_input, TILES, by_prompt=True),
    "internvl": Family(internvl, internvl_input, TILES, packed=True),
}
