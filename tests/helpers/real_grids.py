"""Models with the image sizes, patches and crops of released ones, but a width of a few numbers."""

from functools import cache
from typing import Any

import torch
import transformers
from families import IMAGE_TOKEN, ROPE, TEXT, VIDEO_TOKEN

SIDE, PATCH = 336, 14
PINPOINTS = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]  # of LLaVA-1.6
NARROW = {"hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 2}
SHALLOW = {**TEXT, "num_hidden_layers": 2}


@cache
def llava_next() -> Any:
    """LLaVA-1.6: crops of 24 x 24 cells."""
    vision = transformers.CLIPVisionConfig(
        **NARROW, num_hidden_layers=2, image_size=SIDE, patch_size=PATCH
    )
    config = transformers.LlavaNextConfig(
        vision_config=vision, text_config=transformers.LlamaConfig(**SHALLOW),
        image_token_index=IMAGE_TOKEN, image_grid_pinpoints=PINPOINTS, vision_feature_layer=-2,
        vision_feature_select_strategy="default",
    )  # fmt: skip
    torch.manual_seed(0)
    return transformers.LlavaNextForConditionalGeneration(config).eval()


@cache
def qwen2_5_vl() -> Any:
    """Qwen2.5-VL: patches of 14 x 14 pixels, attention windows of 112 x 112 pixels."""
    vision = {
        "depth": 2, "hidden_size": 24, "num_heads": 3, "intermediate_size": 8, "patch_size": PATCH,
        "spatial_merge_size": 2, "temporal_patch_size": 2, "window_size": 112,
        "out_hidden_size": TEXT["hidden_size"], "fullatt_block_indexes": [1],
    }  # fmt: skip
    config = transformers.Qwen2_5_VLConfig(
        vision_config=vision, text_config={**SHALLOW, "rope_parameters": ROPE},
        image_token_id=IMAGE_TOKEN, video_token_id=VIDEO_TOKEN, vision_start_token_id=2,
        vision_end_token_id=3,
    )  # fmt: skip
    torch.manual_seed(0)
    return transformers.Qwen2_5_VLForConditionalGeneration(config).eval()
