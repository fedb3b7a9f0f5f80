"""Sizes of released models, as their config.json has them, to build them without a network.

Knows nothing about weights.
"""

from collections.abc import Callable, Mapping
from typing import Any

from transformers import (
    Idefics3Config,
    InternVLConfig,
    LlavaConfig,
    LlavaNextConfig,
    LlavaOnevisionConfig,
    Mistral3Config,
    PreTrainedConfig,
    Qwen2_5_VLConfig,
    SmolVLMConfig,
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
# behind InternVL's own vocabularies
QWEN2_7B = {
    **{name: value for name, value in QWEN_7B.items() if name != "rope_parameters"},
    "model_type": "qwen2", "vocab_size": 151674, "max_position_embeddings": 32768,
}  # fmt: skip
QWEN2_1_5B = {
    **QWEN2_7B, "hidden_size": 1536, "intermediate_size": 8960, "num_attention_heads": 12,
    "num_key_value_heads": 2,
}  # fmt: skip
QWEN3_8B = {
    **QWEN2_7B, "model_type": "qwen3", "vocab_size": 151936, "hidden_size": 4096,
    "intermediate_size": 12288, "num_hidden_layers": 36, "num_attention_heads": 32,
    "num_key_value_heads": 8, "head_dim": 128, "max_position_embeddings": 40960,
}  # fmt: skip
QWEN2_0_5B = {
    **QWEN2_7B, "hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24,
    "num_attention_heads": 14, "num_key_value_heads": 2,
}  # fmt: skip
SMOL_1_7B = {
    **VICUNA_7B, "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 24,
    "max_position_embeddings": 8192,
}  # fmt: skip
LLAMA3_8B = {
    **VICUNA_7B, "vocab_size": 128259, "intermediate_size": 14336, "num_key_value_heads": 8,
    "max_position_embeddings": 10240,
}  # fmt: skip
NEMO_12B = {
    **MISTRAL_7B, "vocab_size": 131072, "hidden_size": 5120, "num_hidden_layers": 40,
    "head_dim": 128, "max_position_embeddings": 1024000,
}  # fmt: skip
SMALL_24B = {**NEMO_12B, "intermediate_size": 32768, "max_position_embeddings": 131072}
SIGLIP_SO = {
    "hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27,
    "num_attention_heads": 16, "image_size": 384, "patch_size": 14,
}  # fmt: skip
PIXTRAL = {
    "model_type": "pixtral", "hidden_size": 1024, "intermediate_size": 4096,
    "num_hidden_layers": 24, "num_attention_heads": 16, "image_size": 1024, "patch_size": 16,
    "hidden_act": "silu", "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
}  # fmt: skip
INTERN_VIT = {
    "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24,
    "num_attention_heads": 16, "image_size": [448, 448], "patch_size": [14, 14],
    "attention_bias": True, "layer_scale_init_value": 0.1,
}  # fmt: skip
CROPS = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]


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


def _internvl(text: Mapping[str, Any], slot: int) -> PreTrainedConfig:
    return InternVLConfig(
        vision_config=dict(INTERN_VIT), text_config=dict(text), image_token_id=slot,
        image_seq_length=256, tie_word_embeddings=False,
    )  # fmt: skip


def _idefics(text: Mapping[str, Any], side: int, unit: int, kind: type) -> PreTrainedConfig:
    return kind(
        vision_config={**SIGLIP_SO, "image_size": side}, text_config=dict(text), scale_factor=unit,
        image_token_id=text["vocab_size"] - 2, tie_word_embeddings=False,
    )  # fmt: skip


def _onevision(text: Mapping[str, Any], tied: bool = False) -> PreTrainedConfig:
    steps = range(384, 6 * 384 + 1, 384)
    vision = {**SIGLIP_SO, "model_type": "siglip_vision_model", "num_hidden_layers": 26}
    return LlavaOnevisionConfig(
        vision_config={**vision, "vision_use_head": False},
        text_config={**text, "tie_word_embeddings": tied}, tie_word_embeddings=tied,
        image_grid_pinpoints=[[rows, columns] for rows in steps for columns in steps],
        image_token_index=151646, video_token_index=151647,
    )  # fmt: skip


def _pixtral(text: Mapping[str, Any]) -> PreTrainedConfig:
    return LlavaConfig(
        vision_config=dict(PIXTRAL), text_config=dict(text), image_token_index=10,
        image_seq_length=1, vision_feature_layer=-1, vision_feature_select_strategy="full",
    )  # fmt: skip


def _mistral3(text: Mapping[str, Any]) -> PreTrainedConfig:
    return Mistral3Config(
        vision_config={**PIXTRAL, "image_size": 1540, "patch_size": 14}, text_config=dict(text),
        image_token_index=10, spatial_merge_size=2, vision_feature_layer=-1,
        multimodal_projector_bias=False, tie_word_embeddings=False,
    )  # fmt: skip


def _video_llava(text: Mapping[str, Any]) -> PreTrainedConfig:
    return VideoLlavaConfig(
        vision_config={**CLIP_L, "image_size": 224}, text_config=dict(text),
        image_token_index=32000, video_token_index=32001, vision_feature_layer=-2,
        vision_feature_select_strategy="default",
    )  # fmt: skip


# Name of a preset in conf/model -> its config.
CONFIGS: Mapping[str, Callable[[], PreTrainedConfig]] = {
    "idefics3_8b": lambda: _idefics(LLAMA3_8B, 364, 2, Idefics3Config),
    "smolvlm_2b": lambda: _idefics({**SMOL_1_7B, "vocab_size": 49155}, 384, 3, Idefics3Config),
    "smolvlm2_2b": lambda: _idefics({**SMOL_1_7B, "vocab_size": 49280}, 384, 3, SmolVLMConfig),
    "llava_onevision_0_5b": lambda: _onevision({**QWEN2_0_5B, "vocab_size": 152000}, True),
    "llava_onevision_7b": lambda: _onevision({**QWEN2_7B, "vocab_size": 152128}),
    "llava_video_7b": lambda: _onevision({**QWEN2_7B, "vocab_size": 152064}),
    "mistral_small_3_1_24b": lambda: _mistral3(SMALL_24B),
    "pixtral_12b": lambda: _pixtral(NEMO_12B),
    "internvl3_2b": lambda: _internvl(QWEN2_1_5B, 151667),
    "internvl3_8b": lambda: _internvl(QWEN2_7B, 151667),
    "internvl3_5_8b": lambda: _internvl(QWEN3_8B, 151671),
    "llava15_7b": lambda: _llava(VICUNA_7B),
    "llava15_13b": lambda: _llava(VICUNA_13B),
    "llava_next_7b": lambda: _llava_next(VICUNA_7B),
    "llava_next_13b": lambda: _llava_next(VICUNA_13B),
    "llava_next_mistral_7b": lambda: _llava_next(MISTRAL_7B),
    "qwen2_5_vl_7b": lambda: _qwen2_5_vl(QWEN_7B, False),
    "qwen2_5_vl_3b": lambda: _qwen2_5_vl(QWEN_3B, True),
    "video_llava_7b": lambda: _video_llava(VICUNA_7B),
}
