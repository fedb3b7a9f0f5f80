"""Narrow models with the depth and the image sizes of released ones; no weights."""

from typing import Any

from transformers import (
    CLIPVisionConfig,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    InternVLConfig,
    InternVLForConditionalGeneration,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    Mistral3Config,
    Mistral3ForConditionalGeneration,
    MistralConfig,
    PaliGemmaConfig,
    PaliGemmaForConditionalGeneration,
    PixtralVisionConfig,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLMoeConfig,
    Qwen3VLMoeForConditionalGeneration,
    SiglipVisionConfig,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
    VideoLlavaConfig,
    VideoLlavaForConditionalGeneration,
)

IMAGE = 5  # token id of a vision slot
SIDE, PATCH = 336, 14
CLIP: dict[str, Any] = {
    "hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 24, "num_attention_heads": 4,
    "image_size": SIDE, "patch_size": PATCH,
}  # fmt: skip
LLAMA: dict[str, Any] = {
    "vocab_size": 128, "hidden_size": 256, "intermediate_size": 688, "num_hidden_layers": 32,
    "num_attention_heads": 4, "num_key_value_heads": 4, "max_position_embeddings": 4096,
    "pad_token_id": 0,
}  # fmt: skip
# seven query heads share a key head, as in Qwen2.5-VL-7B
QWEN: dict[str, Any] = {
    "vocab_size": 128, "hidden_size": 224, "intermediate_size": 1184, "num_hidden_layers": 28,
    "num_attention_heads": 7, "num_key_value_heads": 1, "max_position_embeddings": 4096,
    "rope_parameters": {
        "rope_type": "default", "rope_theta": 1.0e6, "mrope_section": [4, 6, 6],
    },
}  # fmt: skip
QWEN_VISION: dict[str, Any] = {
    "depth": 32, "hidden_size": 128, "intermediate_size": 344, "num_heads": 4, "patch_size": PATCH,
    "spatial_merge_size": 2, "temporal_patch_size": 2, "window_size": 112, "out_hidden_size": 224,
    "fullatt_block_indexes": [7, 15, 23, 31],
}  # fmt: skip
# four query heads share a key head, as in Qwen3-VL-8B
QWEN3: dict[str, Any] = {
    "vocab_size": 128, "hidden_size": 256, "intermediate_size": 768, "num_hidden_layers": 36,
    "num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 32,
    "max_position_embeddings": 4096,
    "rope_parameters": {
        "rope_type": "default", "rope_theta": 5.0e6, "mrope_section": [6, 5, 5],
    },
}  # fmt: skip
QWEN3_VISION: dict[str, Any] = {
    "depth": 27, "hidden_size": 128, "intermediate_size": 478, "num_heads": 4, "patch_size": 16,
    "spatial_merge_size": 2, "temporal_patch_size": 2, "num_position_embeddings": 2304,
    "out_hidden_size": 256, "deepstack_visual_indexes": [8, 16, 24],
}  # fmt: skip
# two query heads share a key head, and five layers of six see a window, as in Gemma-3-4B
GEMMA3: dict[str, Any] = {
    "vocab_size": 128, "hidden_size": 320, "intermediate_size": 1280, "num_hidden_layers": 34,
    "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 32,
    "query_pre_attn_scalar": 32, "sliding_window": 1024, "max_position_embeddings": 4096,
}  # fmt: skip
# eight query heads share a key head, as in PaliGemma-3B
GEMMA: dict[str, Any] = {
    "model_type": "gemma", "vocab_size": 128, "hidden_size": 256, "intermediate_size": 2048,
    "num_hidden_layers": 18, "num_attention_heads": 8, "num_key_value_heads": 1, "head_dim": 32,
    "max_position_embeddings": 4096, "pad_token_id": 0,
}  # fmt: skip
SIGLIP: dict[str, Any] = {
    "model_type": "siglip_vision_model", "hidden_size": 144, "intermediate_size": 538,
    "num_hidden_layers": 27, "num_attention_heads": 4, "patch_size": PATCH,
    "vision_use_head": False,
}  # fmt: skip
# seven query heads share a key head, as in the language model of InternVL3-8B
QWEN2: dict[str, Any] = {
    "model_type": "qwen2", **{name: QWEN[name] for name in QWEN if name != "rope_parameters"},
}  # fmt: skip
INTERN_VIT: dict[str, Any] = {
    **CLIP, "image_size": [448, 448], "patch_size": [PATCH, PATCH], "attention_bias": True,
}  # fmt: skip


def llava15(**changes: Any) -> LlavaForConditionalGeneration:
    """LLaVA-1.5 with changes of its encoder."""
    return LlavaForConditionalGeneration(
        LlavaConfig(
            vision_config=CLIPVisionConfig(**{**CLIP, **changes}),
            text_config=LlamaConfig(**LLAMA),
            image_token_index=IMAGE, image_seq_length=576, vision_feature_layer=-2,
        )
    )  # fmt: skip


def llava_next() -> LlavaNextForConditionalGeneration:
    """LLaVA-NeXT."""
    return LlavaNextForConditionalGeneration(
        LlavaNextConfig(
            vision_config=CLIPVisionConfig(**CLIP), text_config=LlamaConfig(**LLAMA),
            image_token_index=IMAGE, vision_feature_layer=-2,
            image_grid_pinpoints=[[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]],
        )
    )  # fmt: skip


def qwen2_5_vl() -> Qwen2_5_VLForConditionalGeneration:
    """Qwen2.5-VL."""
    return Qwen2_5_VLForConditionalGeneration(
        Qwen2_5_VLConfig(
            vision_config=QWEN_VISION, text_config=QWEN, image_token_id=IMAGE, video_token_id=4,
            vision_start_token_id=2, vision_end_token_id=3,
        )
    )  # fmt: skip


def qwen3_vl() -> Qwen3VLForConditionalGeneration:
    """Qwen3-VL."""
    return Qwen3VLForConditionalGeneration(
        Qwen3VLConfig(
            vision_config=QWEN3_VISION, text_config=QWEN3, image_token_id=IMAGE, video_token_id=4,
            vision_start_token_id=2, vision_end_token_id=3,
        )
    )  # fmt: skip


def qwen3_vl_moe() -> Qwen3VLMoeForConditionalGeneration:
    """Qwen3-VL with experts, eight of which compute a token."""
    experts = {"num_experts": 32, "num_experts_per_tok": 8, "moe_intermediate_size": 96}
    return Qwen3VLMoeForConditionalGeneration(
        Qwen3VLMoeConfig(
            vision_config=QWEN3_VISION, text_config={**QWEN3, **experts}, image_token_id=IMAGE,
            video_token_id=4, vision_start_token_id=2, vision_end_token_id=3,
        )
    )  # fmt: skip


def gemma3() -> Gemma3ForConditionalGeneration:
    """Gemma 3."""
    return Gemma3ForConditionalGeneration(
        Gemma3Config(
            vision_config={**SIGLIP, "image_size": 896}, text_config=GEMMA3,
            mm_tokens_per_image=256, image_token_index=IMAGE, boi_token_index=2, eoi_token_index=3,
        )
    )  # fmt: skip


def paligemma() -> PaliGemmaForConditionalGeneration:
    """PaliGemma."""
    width = GEMMA["hidden_size"]
    return PaliGemmaForConditionalGeneration(
        PaliGemmaConfig(
            vision_config={**SIGLIP, "image_size": 448, "projection_dim": width},
            text_config=GEMMA, projection_dim=width, image_token_index=IMAGE,
        )
    )  # fmt: skip


def internvl() -> InternVLForConditionalGeneration:
    """InternVL3."""
    return InternVLForConditionalGeneration(
        InternVLConfig(
            vision_config=INTERN_VIT, text_config=QWEN2, image_token_id=IMAGE, image_seq_length=256
        )
    )


def _tiled(side: int, unit: int) -> dict[str, Any]:
    return {
        "vision_config": {**CLIP, "image_size": side}, "text_config": LlamaConfig(**LLAMA),
        "scale_factor": unit, "image_token_id": IMAGE,
    }  # fmt: skip


def smolvlm() -> SmolVLMForConditionalGeneration:
    """SmolVLM2."""
    return SmolVLMForConditionalGeneration(SmolVLMConfig(**_tiled(384, 3)))


def idefics3() -> Idefics3ForConditionalGeneration:
    """Idefics3."""
    return Idefics3ForConditionalGeneration(Idefics3Config(**_tiled(364, 2)))


def onevision() -> LlavaOnevisionForConditionalGeneration:
    """LLaVA-OneVision."""
    return LlavaOnevisionForConditionalGeneration(
        LlavaOnevisionConfig(
            vision_config=SiglipVisionConfig(**{**CLIP, "image_size": 384}, vision_use_head=False),
            text_config=QWEN2, image_token_index=IMAGE, video_token_index=4,
            image_grid_pinpoints=[[384, 384], [768, 768]],
        )
    )  # fmt: skip


def mistral3() -> Mistral3ForConditionalGeneration:
    """Mistral 3."""
    vision = {**CLIP, "image_size": 1540, "hidden_act": "silu"}
    return Mistral3ForConditionalGeneration(
        Mistral3Config(
            vision_config=PixtralVisionConfig(**vision),
            text_config=MistralConfig(**LLAMA, sliding_window=None),
            image_token_index=IMAGE, spatial_merge_size=2, vision_feature_layer=-1,
        )
    )  # fmt: skip


def pixtral() -> LlavaForConditionalGeneration:
    """Pixtral."""
    vision = {**CLIP, "image_size": 1024, "patch_size": 16, "hidden_act": "silu"}
    return LlavaForConditionalGeneration(
        LlavaConfig(
            vision_config=PixtralVisionConfig(**vision),
            text_config=MistralConfig(**LLAMA, sliding_window=None),
            image_token_index=IMAGE, image_seq_length=1, vision_feature_layer=-1,
            vision_feature_select_strategy="full",
        )
    )  # fmt: skip


def video_llava() -> VideoLlavaForConditionalGeneration:
    """Video-LLaVA; its videos stand where other models have images."""
    return VideoLlavaForConditionalGeneration(
        VideoLlavaConfig(
            vision_config=CLIPVisionConfig(**{**CLIP, "image_size": 224}),
            text_config=LlamaConfig(**LLAMA), image_token_index=4, video_token_index=IMAGE,
            vision_feature_layer=-2, vision_feature_select_strategy="default",
        )
    )  # fmt: skip
