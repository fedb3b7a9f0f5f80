"""Tiny random models of every family, and prompts with images of several sizes for them."""

from typing import Any

import torch
import transformers
from family_prompts import (
    CLIP,
    IMAGE_TOKEN,
    TEXT,
    VIDEO_TOKEN,
    Family,
    Image,
    Part,
    Prompts,
    Video,
    pixels,
)
from gemma_families import GEMMAS
from tiled_families import TILED
from transformers.models.llava_next.modeling_llava_next import image_size_to_num_patches

__all__ = ["FAMILIES", "FRAMES", "Family", "Image", "Part", "Video"]

QWEN = {
    "depth": 4, "hidden_size": 24, "num_heads": 3, "patch_size": 4, "spatial_merge_size": 2,
    "temporal_patch_size": 2,
}  # fmt: skip
QWEN3 = {
    **QWEN, "intermediate_size": 48, "out_hidden_size": 32, "num_position_embeddings": 64,
    "deepstack_visual_indexes": [0, 1, 2],
}  # fmt: skip
FRAMES = 2  # of every video of Video-LLaVA, whose pixels are stacked
ROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1]}


def llava_next(attention: str) -> Any:
    config = transformers.LlavaNextConfig(
        vision_config=transformers.CLIPVisionConfig(**CLIP),
        text_config=transformers.LlamaConfig(**TEXT), image_token_index=IMAGE_TOKEN,
        image_grid_pinpoints=[[24, 48], [48, 24], [48, 48], [72, 24], [24, 72]],
        vision_feature_layer=-2, vision_feature_select_strategy="default", image_seq_length=36,
    )  # fmt: skip
    return transformers.LlavaNextForConditionalGeneration(config)


def llava_next_image(prompt: Prompts, image: Image) -> None:
    config, side = prompt.config, prompt.config.vision_config.image_size
    crops = image_size_to_num_patches(list(image), config.image_grid_pinpoints, side)
    packed, _ = prompt.model.model.pack_image_features(
        [torch.zeros(crops, (side // config.vision_config.patch_size) ** 2, 1)],
        torch.tensor([image]), vision_feature_select_strategy="default",
        image_newline=torch.zeros(1),
    )  # fmt: skip
    drawn = torch.stack(
        [pixels(side, 3, side, seed=prompt.generator).transpose(0, 1) for _ in range(crops)]
    )
    prompt.add(pixel_values=drawn, image_sizes=torch.tensor(image))
    prompt.slots(IMAGE_TOKEN, len(packed[0]))


def qwen2_5_vl(attention: str) -> Any:
    config = transformers.Qwen2_5_VLConfig(
        vision_config={**QWEN, "intermediate_size": 48, "window_size": 16, "out_hidden_size": 32,
                       "fullatt_block_indexes": [1, 3]},
        text_config={**TEXT, "rope_parameters": ROPE}, image_token_id=IMAGE_TOKEN,
        video_token_id=VIDEO_TOKEN, vision_start_token_id=2, vision_end_token_id=3,
    )  # fmt: skip
    return transformers.Qwen2_5_VLForConditionalGeneration(config)


def qwen2_vl(attention: str) -> Any:
    config = transformers.Qwen2VLConfig(
        vision_config={**QWEN, "embed_dim": 24, "mlp_ratio": 2, "hidden_size": 32},
        text_config={**TEXT, "rope_parameters": ROPE}, image_token_id=IMAGE_TOKEN,
        video_token_id=VIDEO_TOKEN, vision_start_token_id=2, vision_end_token_id=3,
    )  # fmt: skip
    return transformers.Qwen2VLForConditionalGeneration(config)


def qwen3_vl(attention: str) -> Any:
    config = transformers.Qwen3VLConfig(
        vision_config=QWEN3, text_config={**TEXT, "head_dim": 8, "rope_parameters": ROPE},
        image_token_id=IMAGE_TOKEN, video_token_id=VIDEO_TOKEN, vision_start_token_id=2,
        vision_end_token_id=3,
    )  # fmt: skip
    return transformers.Qwen3VLForConditionalGeneration(config)


def qwen3_vl_moe(attention: str) -> Any:
    text = {**TEXT, "head_dim": 8, "num_experts": 4, "num_experts_per_tok": 2}
    config = transformers.Qwen3VLMoeConfig(
        vision_config=QWEN3,
        text_config={**text, "moe_intermediate_size": 24, "rope_parameters": ROPE},
        image_token_id=IMAGE_TOKEN, video_token_id=VIDEO_TOKEN, vision_start_token_id=2,
        vision_end_token_id=3,
    )  # fmt: skip
    return transformers.Qwen3VLMoeForConditionalGeneration(config)


def qwen_input(prompt: Prompts, part: Image | Video) -> None:
    """Flat patches, four after four of a cell, and the numbers of patches along each axis."""
    vision = prompt.config.vision_config
    frames = part.frames // vision.temporal_patch_size if isinstance(part, Video) else 1
    height, width = (side // vision.patch_size for side in part[-2:])
    size = 3 * vision.temporal_patch_size * vision.patch_size**2
    drawn = pixels(frames * height * width, size, seed=prompt.generator)
    grid = torch.tensor([frames, height, width])
    if isinstance(part, Video):
        prompt.add(pixel_values_videos=drawn, video_grid_thw=grid)
        if isinstance(prompt.model, transformers.Qwen2_5_VLForConditionalGeneration):
            prompt.add(second_per_grid_ts=torch.tensor(1.0))
    else:
        prompt.add(pixel_values=drawn, image_grid_thw=grid)
    token = VIDEO_TOKEN if isinstance(part, Video) else IMAGE_TOKEN
    runs = frames if vision.model_type.startswith("qwen3") else 1  # a time before each frame
    for run in range(runs):
        if run:
            prompt.text(2)
        prompt.slots(token, frames // runs * height * width // vision.spatial_merge_size**2)


def video_llava(attention: str) -> Any:
    config = transformers.VideoLlavaConfig(
        vision_config=transformers.CLIPVisionConfig(**{**CLIP, "image_size": 28}),
        text_config=transformers.LlamaConfig(**TEXT), image_token_index=IMAGE_TOKEN,
        video_token_index=VIDEO_TOKEN, image_seq_length=49, video_seq_length=FRAMES * 50,
    )  # fmt: skip
    return transformers.VideoLlavaForConditionalGeneration(config)


def video_llava_input(prompt: Prompts, part: Image | Video) -> None:
    """Every picture becomes a square of one size; a frame has its [CLS] too."""
    vision = prompt.config.vision_config
    side, cells = vision.image_size, (vision.image_size // vision.patch_size) ** 2
    count = part.frames if isinstance(part, Video) else 1
    drawn = [pixels(side, 3, side, seed=prompt.generator).transpose(0, 1) for _ in range(count)]
    if isinstance(part, Video):
        prompt.add(pixel_values_videos=torch.stack(drawn))
        prompt.slots(VIDEO_TOKEN, count * (cells + 1))
    else:
        prompt.add(pixel_values_images=drawn[0])
        prompt.slots(IMAGE_TOKEN, cells)


def onevision(attention: str) -> Any:
    config = transformers.LlavaOnevisionConfig(
        vision_config=transformers.SiglipVisionConfig(**CLIP, vision_use_head=False),
        text_config=transformers.Qwen2Config(**TEXT), image_token_index=IMAGE_TOKEN,
        video_token_index=VIDEO_TOKEN, vision_aspect_ratio="anyres_max_2",
        image_grid_pinpoints=[[24 * r, 24 * c] for r in (1, 2, 3) for c in (1, 2, 3)],
    )  # fmt: skip
    return transformers.LlavaOnevisionForConditionalGeneration(config)


def onevision_input(prompt: Prompts, part: Image | Video) -> None:
    """The only image of a prompt is cropped; ``Family.inputs`` counts the images of each prompt."""
    config, side = prompt.config, prompt.config.vision_config.image_size
    if isinstance(part, Video):
        drawn = [pixels(side, 3, side, seed=prompt.generator) for _ in range(part.frames)]
        prompt.add(pixel_values_videos=torch.stack(drawn).transpose(1, 2))
        return prompt.slots(VIDEO_TOKEN, part.frames * 9 + 1)
    count = 1
    if prompt.images == 1:
        count = image_size_to_num_patches(list(part), config.image_grid_pinpoints, side)
    packed, _ = prompt.model.model.pack_image_features(
        [torch.zeros(count, 36, 1)], torch.tensor([part]), image_newline=torch.zeros(1),
        vision_aspect_ratio=config.vision_aspect_ratio,
    )  # fmt: skip
    drawn = [pixels(side, 3, side, seed=prompt.generator) for _ in range(count)]
    prompt.add(pixel_values=torch.stack(drawn).transpose(1, 2), image_sizes=torch.tensor(part))
    prompt.slots(IMAGE_TOKEN, len(packed[0]))


MARKED = "mm_token_type_ids"
QWEN_PROMPTS = (
    (3, Image(32, 48), 7),
    (2, Image(16, 24), 3, Image(40, 16), 12),
    (9, Video(4, 24, 32), 2, Image(24, 24), 4),
)
FAMILIES = {
    **GEMMAS,
    **TILED,
    "llava_next": Family(
        llava_next, llava_next_image,
        ((3, Image(24, 48), 7), (2, Image(40, 22), 2, Image(24, 24), 12), (9, Image(48, 48), 4)),
    ),
    "qwen2_5_vl": Family(qwen2_5_vl, qwen_input, QWEN_PROMPTS, packed=True, types=MARKED),
    "qwen2_vl": Family(qwen2_vl, qwen_input, QWEN_PROMPTS, packed=True, types=MARKED),
    "qwen3_vl": Family(qwen3_vl, qwen_input, QWEN_PROMPTS, packed=True, types=MARKED),
    "onevision": Family(
        onevision, onevision_input,
        (
            (3, Image(40, 22), 7),
            (2, Image(24, 24), 3, Image(40, 22), 12),
            (9, Video(3, 16, 16), 2, Image(72, 72), 4),
        ),
        counted=True,
    ),
    "video_llava": Family(
        video_llava, video_llava_input,
        (
            (3, Video(FRAMES, 16, 16), 7),
            (2, Image(16, 16), 3, Image(24, 16), 12),
            (9, Video(FRAMES, 16, 24), 2, Image(16, 16), 4),
        ),
    ),
}  # fmt: skip
# Other classes of models that the same adapters serve.
OTHER_CLASSES = {
    "qwen3_vl_moe": Family(qwen3_vl_moe, qwen_input, QWEN_PROMPTS, packed=True, types=MARKED),
}
