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


def mistral3(attention: str) -> Any:
    config = transformers.Mistral3Config(
        vision_config=transformers.PixtralVisionConfig(**PIXTRAL),
        text_config=transformers.MistralConfig(**TEXT, head_dim=8, sliding_window=None),
        image_token_index=IMAGE_TOKEN, spatial_merge_size=2, vision_feature_layer=-1,
    )  # fmt: skip
    return transformers.Mistral3ForConditionalGeneration(config)


def pixtral(attention: str) -> Any:
    config = transformers.LlavaConfig(
        vision_config=transformers.PixtralVisionConfig(**PIXTRAL),
        text_config=transformers.MistralConfig(**TEXT, head_dim=8, sliding_window=None),
        image_token_index=IMAGE_TOKEN, vision_feature_layer=-1,
        vision_feature_select_strategy="full", image_seq_length=1,
    )  # fmt: skip
    return transformers.LlavaForConditionalGeneration(config)


def pixtral_input(prompt: Prompts, image: Image) -> None:
    """An image with a break token between its rows; a batch is padded to the largest image."""
    cell = 4 * getattr(prompt.config, "spatial_merge_size", 1)
    made = pixels(image.height, 3, image.width, seed=prompt.generator).transpose(0, 1)
    prompt.add(pixel_values=made[None], image_sizes=torch.tensor(image))
    for row in range(image.height // cell):
        if row:
            prompt.text(1)
        prompt.slots(IMAGE_TOKEN, image.width // cell)


PIXTRAL = {**CLIP, "image_size": 64, "hidden_act": "silu"}
ANY_SIZE = (
    (3, Image(32, 48), 7),
    (2, Image(16, 24), 3, Image(40, 16), 12),
    (9, Image(24, 24), 4),
)
TILES = (
    (3, Image(16, 32), 7),
    (2, Image(16, 16), 3, Image(32, 32), 12),
    (9, Video(2, 16, 16), 2, Image(32, 16), 4),
)
TILED = {
    "mistral3": Family(mistral3, pixtral_input, ANY_SIZE, packed=True),
    "pixtral": Family(pixtral, pixtral_input, ANY_SIZE, packed=True),
    "idefics3": Family(idefics3, idefics_input, TILES, by_prompt=True),
    "smolvlm": Family(smolvlm, idefics_input, TILES, by_prompt=True),
    "internvl": Family(internvl, internvl_input, TILES, packed=True),
}
