"""Sizes of released models, as their config.json has them, to build them without a network.

Knows nothing about weights.
"""

from collections.abc import Callable, Mapping
from typing import Any

from transformers import (
    Gemma3Config,
    LlavaConfig,
    LlavaNextConfig,
    PaliGemmaConfig,
    PreTrainedConfig,
    Qwen2_5_VLConfig,
    Qwen3VLConfig,
    Qwen3VLMoeConfig,
    VideoLlavaConfig,
)

CLIP_L = {
    "model_type": "clip_vision_model", "hidden_size": 1024, "intermediate_size": 4096,
    "num_hidden_layers": 24, "num_attention_heads": 16, "image_size": 336, "patch_size": 14,
}  # fmt: skip
VICUNA_7B = {
    "model_type": "llama", "vocab_size": 32064, "hidden_size": 4096, "intermediate_size": 11008,
    "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 32,
    "max_position_embeddings": 4096, "rms_norm_eps": 1e-5, "pad_token_id": 0,
}  # fmt: skip
VICUNA_13B = {
    **VICUNA_7B, "hidden_size": 5120, "intermediate_size": 13824, "num_hidden_layers": 40,
    "num_attention_heads": 40, "num_key_value_heads": 40,
}  # fmt: skip
MISTRAL_7B = {
    **VICUNA_7B, "model_type": "mistral", "intermediate_size": 14336, "num_key_value_heads": 8,
    "max_position_embeddings": 32768, "sliding_window": None,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1.0e6},
}  # fmt: skip
QWEN_VISION = {
    "depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "patch_size": 14,
    "spatial_merge_size": 2, "temporal_patch_size": 2, "window_size": 112,
    "fullatt_block_indexes": [7, 15, 23, 31],
}  # fmt: skip
QWEN_7B = {
    "vocab_size": 152064, "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28,
    "num_attention_heads": 28, "num_key_value_heads": 4, "max_position_embeddings": 128000,
    "rms_norm_eps": 1e-6, "pad_token_id": 0,
    "rope_parameters": {
        "rope_type": "default", "rope_theta": 1.0e6, "mrope_section": [16, 24, 24],
    },
}  # fmt: skip
QWEN_3B = {
    **QWEN_7B, "vocab_size": 151936, "hidden_size": 2048, "intermediate_size": 11008,
    "num_hidden_layers": 36, "num_attention_heads": 16, "num_key_value_heads": 2,
}  # fmt: skip
QWEN3_VISION = {
    "depth": 27, "hidden_size": 1152, "intermediate_size": 4304, "num_heads": 16, "patch_size": 16,
    "spatial_merge_size": 2, "temporal_patch_size": 2, "num_position_embeddings": 2304,
    "deepstack_visual_indexes": [8, 16, 24],
}  # fmt: skip
QWEN3_SMALL_VISION = {
    **QWEN3_VISION, "depth": 24, "hidden_size": 1024, "intermediate_size": 4096,
    "deepstack_visual_indexes": [5, 11, 17],
}  # fmt: skip
QWEN3_8B = {
    "vocab_size": 151936, "hidden_size": 4096, "intermediate_size": 12288, "num_hidden_layers": 36,
    "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128,
    "max_position_embeddings": 262144, "rms_norm_eps": 1e-6, "pad_token_id": 0,
    "rope_parameters": {
        "rope_type": "default", "rope_theta": 5.0e6, "mrope_section": [24, 20, 20],
    },
}  # fmt: skip
QWEN3_4B = {**QWEN3_8B, "hidden_size": 2560, "intermediate_size": 9728}
QWEN3_2B = {
    **QWEN3_8B, "hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 28,
    "num_attention_heads": 16,
}  # fmt: skip
QWEN3_30B_A3B = {
    **QWEN3_8B, "hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 48,
    "num_key_value_heads": 4, "num_experts": 128, "num_experts_per_tok": 8,
    "moe_intermediate_size": 768,
}  # fmt: skip
SIGLIP_SO = {
    "model_type": "siglip_vision_model", "hidden_size": 1152, "intermediate_size": 4304,
    "num_hidden_layers": 27, "num_attention_heads": 16, "patch_size": 14, "vision_use_head": False,
}  # fmt: skip
GEMMA3_4B = {
    "vocab_size": 262208, "hidden_size": 2560, "intermediate_size": 10240, "num_hidden_layers": 34,
    "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256,
    "query_pre_attn_scalar": 256, "sliding_window": 1024, "max_position_embeddings": 131072,
    "rope_parameters": {
        "sliding_attention": {"rope_type": "default", "rope_theta": 1.0e4},
        "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1.0e6},
    },
}  # fmt: skip
GEMMA3_12B = {
    **GEMMA3_4B, "hidden_size": 3840, "intermediate_size": 15360, "num_hidden_layers": 48,
    "num_attention_heads": 16, "num_key_value_heads": 8,
}  # fmt: skip
GEMMA_2B = {
    "model_type": "gemma", "vocab_size": 257216, "hidden_size": 2048, "intermediate_size": 16384,
    "num_hidden_layers": 18, "num_attention_heads": 8, "num_key_value_heads": 1, "head_dim": 256,
    "max_position_embeddings": 8192, "pad_token_id": 0,
}  # fmt: skip
CROPS = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]


def _gemma3(text: Mapping[str, Any]) -> PreTrainedConfig:
    return Gemma3Config(
        vision_config={**SIGLIP_SO, "image_size": 896}, text_config=dict(text),
        mm_tokens_per_image=256, image_token_index=262144, boi_token_index=255999,
        eoi_token_index=256000, tie_word_embeddings=True,
    )  # fmt: skip


def _paligemma(side: int) -> PreTrainedConfig:
    return PaliGemmaConfig(
        vision_config={**SIGLIP_SO, "image_size": side, "projection_dim": 2048},
        text_config=dict(GEMMA_2B), projection_dim=2048, image_token_index=257152,
        tie_word_embeddings=True,
    )  # fmt: skip


def _llava(text: Mapping[str, Any]) -> PreTrainedConfig:
    return LlavaConfig(
        vision_config=dict(CLIP_L), text_config=dict(text), image_token_index=32000,
        image_seq_length=576, vision_feature_layer=-2, vision_feature_select_strategy="default",
    )  # fmt: skip


def _llava_next(text: Mapping[str, Any]) -> PreTrainedConfig:
    return LlavaNextConfig(
        vision_config=dict(CLIP_L), text_config=dict(text), image_token_index=32000,
        image_grid_pinpoints=CROPS, image_seq_length=576, vision_feature_layer=-2,
        vision_feature_select_strategy="default",
    )  # fmt: skip


def _qwen2_5_vl(text: Mapping[str, Any], tied: bool) -> PreTrainedConfig:
    return Qwen2_5_VLConfig(
        vision_config={**QWEN_VISION, "out_hidden_size": text["hidden_size"]},
        text_config={**text, "tie_word_embeddings": tied}, tie_word_embeddings=tied,
        image_token_id=151655, video_token_id=151656, vision_start_token_id=151652,
        vision_end_token_id=151653,
    )  # fmt: skip


def _qwen3_vl(
    text: Mapping[str, Any], vision: Mapping[str, Any], tied: bool, kind: Any = Qwen3VLConfig
) -> PreTrainedConfig:
    return kind(
        vision_config={**vision, "out_hidden_size": text["hidden_size"]},
        text_config={**text, "tie_word_embeddings": tied}, tie_word_embeddings=tied,
        image_token_id=151655, video_token_id=151656, vision_start_token_id=151652,
        vision_end_token_id=151653,
    )  # fmt: skip


def _video_llava(text: Mapping[str, Any]) -> PreTrainedConfig:
    return VideoLlavaConfig(
        vision_config={**CLIP_L, "image_size": 224}, text_config=dict(text),
        image_token_index=32000, video_token_index=32001, vision_feature_layer=-2,
        vision_feature_select_strategy="default",
    )  # fmt: skip


# Name of a preset in conf/model -> its config.
CONFIGS: Mapping[str, Callable[[], PreTrainedConfig]] = {
    "gemma3_4b": lambda: _gemma3(GEMMA3_4B),
    "gemma3_12b": lambda: _gemma3(GEMMA3_12B),
    "llava15_7b": lambda: _llava(VICUNA_7B),
    "llava15_13b": lambda: _llava(VICUNA_13B),
    "llava_next_7b": lambda: _llava_next(VICUNA_7B),
    "llava_next_13b": lambda: _llava_next(VICUNA_13B),
    "llava_next_mistral_7b": lambda: _llava_next(MISTRAL_7B),
    "paligemma_3b_224": lambda: _paligemma(224),
    "paligemma_3b_448": lambda: _paligemma(448),
    "qwen2_5_vl_7b": lambda: _qwen2_5_vl(QWEN_7B, False),
    "qwen2_5_vl_3b": lambda: _qwen2_5_vl(QWEN_3B, True),
    "qwen3_vl_2b": lambda: _qwen3_vl(QWEN3_2B, QWEN3_SMALL_VISION, True),
    "qwen3_vl_4b": lambda: _qwen3_vl(QWEN3_4B, QWEN3_SMALL_VISION, True),
    "qwen3_vl_8b": lambda: _qwen3_vl(QWEN3_8B, QWEN3_VISION, False),
    "qwen3_vl_30b_a3b": lambda: _qwen3_vl(QWEN3_30B_A3B, QWEN3_VISION, False, Qwen3VLMoeConfig),
    "video_llava_7b": lambda: _video_llava(VICUNA_7B),
}
