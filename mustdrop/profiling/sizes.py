"""Sizes of released models, as their config.json has them, to build them without a network.

Knows nothing about weights.
"""

from collections.abc import Callable, Mapping
from typing import Any

from transformers import (
    Gemma3Config,
    Idefics3Config,
    InternVLConfig,
    LlavaConfig,
    LlavaNextConfig,
    LlavaOnevisionConfig,
    Mistral3Config,
    PaliGemmaConfig,
    PreTrainedConfig,
    Qwen2_5_VLConfig,
    Qwen3VLConfig,
    Qwen3VLMoeConfig,
    SmolVLMConfig,
    VideoLlavaConfig,
)

from mustdrop.profiling.part_sizes import (
    CLIP_L,
    GEMMA3_4B,
    GEMMA3_12B,
    GEMMA_2B,
    INTERN_VIT,
    LLAMA3_8B,
    MISTRAL_7B,
    NEMO_12B,
    PIXTRAL,
    QWEN2_0_5B,
    QWEN2_1_5B,
    QWEN2_7B,
    QWEN3_2B,
    QWEN3_4B,
    QWEN3_8B,
    QWEN3_30B_A3B,
    QWEN3_SMALL_VISION,
    QWEN3_TEXT_8B,
    QWEN3_VISION,
    QWEN_3B,
    QWEN_7B,
    QWEN_VISION,
    SIGLIP_PATCHES,
    SIGLIP_SO,
    SMALL_24B,
    SMOL_1_7B,
    VICUNA_7B,
    VICUNA_13B,
)

CROPS = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]


def _gemma3(text: Mapping[str, Any]) -> PreTrainedConfig:
    return Gemma3Config(
        vision_config={**SIGLIP_PATCHES, "image_size": 896}, text_config=dict(text),
        mm_tokens_per_image=256, image_token_index=262144, boi_token_index=255999,
        eoi_token_index=256000, tie_word_embeddings=True,
    )  # fmt: skip


def _paligemma(side: int) -> PreTrainedConfig:
    return PaliGemmaConfig(
        vision_config={**SIGLIP_PATCHES, "image_size": side, "projection_dim": 2048},
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
    return LlavaOnevisionConfig(
        vision_config={**SIGLIP_PATCHES, "num_hidden_layers": 26, "image_size": 384},
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
    "gemma3_4b": lambda: _gemma3(GEMMA3_4B),
    "gemma3_12b": lambda: _gemma3(GEMMA3_12B),
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
    "internvl3_5_8b": lambda: _internvl(QWEN3_TEXT_8B, 151671),
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
