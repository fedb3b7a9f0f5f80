"""Narrow models with the depth, image sizes and prompt lengths of released ones; no weights."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers import (
    CLIPVisionConfig,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    PaliGemmaConfig,
    PaliGemmaForConditionalGeneration,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)

IMAGE, BEFORE, AFTER = 5, 35, 30  # token id of a vision slot; text tokens around the image
SIDE, PATCH = 336, 14
CLIP: dict[str, Any] = {
    "hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 24, "num_attention_heads": 4,
    "image_size": SIDE, "patch_size": PATCH,
}  # fmt: skip
# with as many blocks the encoder has LLaVA-1.5's share of the operations, 4.3 % of the prefill
SHALLOW_CLIP: dict[str, Any] = {"num_hidden_layers": 5}
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


@dataclass(frozen=True)
class BenchShape:
    """Model and image that stand for a family.

    Attributes:
        build: Makes the model.
        image: Pixels of one image, and what else the processor returns for it.
        slots: Vision tokens of the image, newlines included.
        targets: Executed averages that are measured.
        layers: Layers after which dual attention acts.
        window: Side of the windows that are merged, in cells.
        kinds: Name of the input that tells what kind of token each one is; None: there is none.
        marked: Whether that differs between text and images.
    """

    build: Callable[[], Any]
    image: Callable[[torch.Generator], dict[str, Tensor]]
    slots: int
    targets: Sequence[int]
    layers: Sequence[int]
    window: int
    kinds: str | None = None
    marked: bool = True

    def model(self) -> Any:
        """Make the model with random weights, whose attention differs by token."""
        torch.manual_seed(0)
        model = self.build().eval()
        generator = torch.Generator().manual_seed(1)
        for name, weight in model.named_parameters():
            if name.endswith(("q_proj.weight", "k_proj.weight")):  # unit-variance logits
                weight.data.normal_(0, 1.5 / weight.shape[1] ** 0.5, generator=generator)
        return model

    def prompt(self, batch: int = 1) -> dict[str, Tensor]:
        """Make a batch of equal prompts: 35 text tokens, the image and 30 text tokens."""
        generator = torch.Generator().manual_seed(2)
        text = torch.randint(6, 128, (BEFORE + AFTER,), generator=generator)
        slots = torch.full((self.slots,), IMAGE)
        ids = torch.cat([text[:BEFORE], slots, text[BEFORE:]])[None]
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        if self.kinds is not None:
            inputs[self.kinds] = ((ids == IMAGE) & self.marked).long()
        inputs |= self.image(generator)
        return {name: torch.cat([value] * batch) for name, value in inputs.items()}


def _llava15(**changes: Any) -> LlavaForConditionalGeneration:
    return LlavaForConditionalGeneration(
        LlavaConfig(
            vision_config=CLIPVisionConfig(**{**CLIP, **changes}),
            text_config=LlamaConfig(**LLAMA),
            image_token_index=IMAGE, image_seq_length=576, vision_feature_layer=-2,
        )
    )  # fmt: skip


def _llava_next() -> LlavaNextForConditionalGeneration:
    return LlavaNextForConditionalGeneration(
        LlavaNextConfig(
            vision_config=CLIPVisionConfig(**CLIP), text_config=LlamaConfig(**LLAMA),
            image_token_index=IMAGE, vision_feature_layer=-2,
            image_grid_pinpoints=[[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]],
        )
    )  # fmt: skip


def _qwen2_5_vl() -> Qwen2_5_VLForConditionalGeneration:
    return Qwen2_5_VLForConditionalGeneration(
        Qwen2_5_VLConfig(
            vision_config=QWEN_VISION, text_config=QWEN, image_token_id=IMAGE, video_token_id=4,
            vision_start_token_id=2, vision_end_token_id=3,
        )
    )  # fmt: skip


def _qwen3_vl() -> Qwen3VLForConditionalGeneration:
    return Qwen3VLForConditionalGeneration(
        Qwen3VLConfig(
            vision_config=QWEN3_VISION, text_config=QWEN3, image_token_id=IMAGE, video_token_id=4,
            vision_start_token_id=2, vision_end_token_id=3,
        )
    )  # fmt: skip


def _gemma3() -> Gemma3ForConditionalGeneration:
    return Gemma3ForConditionalGeneration(
        Gemma3Config(
            vision_config={**SIGLIP, "image_size": 896}, text_config=GEMMA3,
            mm_tokens_per_image=256, image_token_index=IMAGE, boi_token_index=2, eoi_token_index=3,
        )
    )  # fmt: skip


def _paligemma() -> PaliGemmaForConditionalGeneration:
    width = GEMMA["hidden_size"]
    return PaliGemmaForConditionalGeneration(
        PaliGemmaConfig(
            vision_config={**SIGLIP, "image_size": 448, "projection_dim": width},
            text_config=GEMMA, projection_dim=width, image_token_index=IMAGE,
        )
    )  # fmt: skip


def _square(generator: torch.Generator, side: int = SIDE) -> dict[str, Tensor]:
    return {"pixel_values": torch.randn(1, 3, side, side, generator=generator)}


def _crops(generator: torch.Generator) -> dict[str, Tensor]:
    pixels = torch.randn(1, 5, 3, SIDE, SIDE, generator=generator)
    return {"pixel_values": pixels, "image_sizes": torch.tensor([[2 * SIDE, 2 * SIDE]])}


def _patches(generator: torch.Generator, patch: int = PATCH) -> dict[str, Tensor]:
    side = 72  # 36 cells
    pixels = torch.randn(side**2, 3 * 2 * patch**2, generator=generator)
    return {"pixel_values": pixels, "image_grid_thw": torch.tensor([[1, side, side]])}


MARKS = "mm_token_type_ids"
SHAPES: Mapping[str, BenchShape] = {
    # 336 x 336 pixels
    "llava15": BenchShape(_llava15, _square, 576, (192, 128, 64), (2, 6, 10, 14), 3),
    # 672 x 672 pixels: 2880 cells and 48 newlines; the budgets of the papers
    "llava_next": BenchShape(_llava_next, _crops, 2928, (640, 320), (2, 6, 10, 14), 3),
    # 1008 x 1008 pixels: 36 x 36 cells; a third, two ninths and a ninth, as in LLaVA-1.5
    "qwen2_5_vl": BenchShape(_qwen2_5_vl, _patches, 1296, (432, 288, 144), (1, 5, 8, 12), 2, MARKS),
    # 1152 x 1152 pixels: 36 x 36 cells
    "qwen3_vl": BenchShape(
        _qwen3_vl, partial(_patches, patch=16), 1296, (432, 288, 144), (2, 6, 11, 15), 2, MARKS
    ),
    # 896 x 896 pixels: 16 x 16 cells of 4 x 4 patches
    "gemma3": BenchShape(
        _gemma3, partial(_square, side=896), 256, (85, 57, 28), (2, 6, 10, 14), 2, "token_type_ids"
    ),
    # 448 x 448 pixels: 32 x 32 patches
    "paligemma": BenchShape(
        _paligemma,
        partial(_square, side=448),
        1024,
        (341, 228, 114),
        (1, 3, 5, 7),
        2,
        "token_type_ids",
        marked=False,
    ),
}
# LLaVA-1.5 with an encoder of LLaVA-1.5's share, for the time to the first token
FIRST_TOKEN = BenchShape(lambda: _llava15(**SHALLOW_CLIP), _square, 576, (64,), (2, 6, 10, 14), 3)
