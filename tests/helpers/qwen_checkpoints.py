"""Checkpoints of Qwen2.5-VL and Qwen3-VL: files, tokens and configs as on the hub."""

from typing import Any

from hub_family import CLIP_MEANS, HubFamily
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)

PATCH = 4  # in pixels
SPECIAL = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>",
    "<|image_pad|>", "<|video_pad|>",
)  # fmt: skip
ROLES = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
ROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1]}
VISION = {
    "depth": 4, "hidden_size": 24, "intermediate_size": 48, "num_heads": 3, "patch_size": PATCH,
    "spatial_merge_size": 2, "temporal_patch_size": 2, "out_hidden_size": 32,
}  # fmt: skip
QWEN = (
    "{% if messages[0].role != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}{% endif %}"
    "{% for turn in messages %}{{ '<|im_start|>' + turn.role + '\n' }}"
    "{% for part in turn.content %}{% if part.type == 'image' %}"
    "<|vision_start|><|image_pad|><|vision_end|>{% elif part.type == 'video' %}"
    "<|vision_start|><|video_pad|><|vision_end|>{% else %}{{ part.text }}{% endif %}{% endfor %}"
    "{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# without the sentence of the system, and with the times of a video's frames in its own place
QWEN3 = QWEN[QWEN.index("{% for turn") :].replace(
    "<|vision_start|><|video_pad|><|vision_end|>", "<|video_pad|>"
)
QWEN_IMAGES = {
    "image_processor_type": "Qwen2VLImageProcessor", "patch_size": PATCH, "merge_size": 2,
    "temporal_patch_size": 2, **CLIP_MEANS,
}  # fmt: skip
QWEN3_IMAGES = {
    **QWEN_IMAGES, "processor_class": "Qwen3VLProcessor",
    "size": {"shortest_edge": 16 * 16, "longest_edge": 64 * 64},
}  # fmt: skip


def qwen2_5_vl(text: PreTrainedTokenizerFast, language: dict[str, Any]) -> PreTrainedModel:
    config = Qwen2_5_VLConfig(
        vision_config={**VISION, "window_size": 16, "fullatt_block_indexes": [1, 3]},
        text_config={**language, "rope_parameters": ROPE}, **_tokens(text),
    )  # fmt: skip
    return Qwen2_5_VLForConditionalGeneration(config)


def qwen3_vl(text: PreTrainedTokenizerFast, language: dict[str, Any]) -> PreTrainedModel:
    config = Qwen3VLConfig(
        vision_config={
            **VISION, "num_position_embeddings": 64, "deepstack_visual_indexes": [0, 1, 2],
        },
        text_config={**language, "head_dim": 8, "rope_parameters": ROPE}, **_tokens(text),
    )  # fmt: skip
    return Qwen3VLForConditionalGeneration(config)


def _tokens(text: PreTrainedTokenizerFast) -> dict[str, int]:
    names = {
        "image_token_id": "<|image_pad|>", "video_token_id": "<|video_pad|>",
        "vision_start_token_id": "<|vision_start|>", "vision_end_token_id": "<|vision_end|>",
    }  # fmt: skip
    return {name: text.convert_tokens_to_ids(token) for name, token in names.items()}


QWEN_CHECKPOINTS = {
    "qwen2_5_vl": HubFamily(
        qwen2_5_vl, SPECIAL, ROLES, QWEN,
        images={
            **QWEN_IMAGES, "processor_class": "Qwen2_5_VLProcessor", "min_pixels": 16 * 16,
            "max_pixels": 64 * 64,
        },
        processor={},
    ),
    "qwen3_vl": HubFamily(
        qwen3_vl, SPECIAL, ROLES, QWEN3, images=QWEN3_IMAGES, processor={},
        # the limits hold for all frames together
        videos={
            **QWEN3_IMAGES, "video_processor_type": "Qwen3VLVideoProcessor",
            "size": {"shortest_edge": 16 * 16, "longest_edge": 4 * 64 * 64},
        },
    ),
}  # fmt: skip
