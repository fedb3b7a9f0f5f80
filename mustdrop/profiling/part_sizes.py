"""Sizes of the encoders and language models of released models, as their config.json has them.

Knows nothing about weights, and not which encoder stands in front of which language model.
"""

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
    "hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27,
    "num_attention_heads": 16, "patch_size": 14,
}  # fmt: skip
SIGLIP_PATCHES = {**SIGLIP_SO, "model_type": "siglip_vision_model", "vision_use_head": False}
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
# behind InternVL's own vocabularies
QWEN2_7B = {
    **{name: value for name, value in QWEN_7B.items() if name != "rope_parameters"},
    "model_type": "qwen2", "vocab_size": 151674, "max_position_embeddings": 32768,
}  # fmt: skip
QWEN2_1_5B = {
    **QWEN2_7B, "hidden_size": 1536, "intermediate_size": 8960, "num_attention_heads": 12,
    "num_key_value_heads": 2,
}  # fmt: skip
QWEN3_TEXT_8B = {
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
