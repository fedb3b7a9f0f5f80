"""Narrow models with the depth, image sizes and prompt lengths of released ones; no weights."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import (
    CLIPVisionConfig,
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
    PixtralVisionConfig,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    SiglipVisionConfig,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
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
# seven query heads share a key head, as in the language model of InternVL3-8B
QWEN2: dict[str, Any] = {
    "model_type": "qwen2", **{name: QWEN[name] for name in QWEN if name != "rope_parameters"},
}  # fmt: skip
INTERN_VIT: dict[str, Any] = {
    **CLIP, "image_size": [448, 448], "patch_size": [PATCH, PATCH], "attention_bias": True,
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
        coordinates: Whether rotary positions are coordinates, for which prompts mark their images.
    """

    build: Callable[[], Any]
    image: Callable[[torch.Generator], dict[str, Tensor]]
    slots: int
    targets: Sequence[int]
    layers: Sequence[int]
    window: int
    coordinates: bool = False

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
        if self.coordinates:
            inputs["mm_token_type_ids"] = (ids == IMAGE).long()
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


def _internvl() -> InternVLForConditionalGeneration:
    return InternVLForConditionalGeneration(
        InternVLConfig(
            vision_config=INTERN_VIT, text_config=QWEN2, image_token_id=IMAGE, image_seq_length=256
        )
    )


def _smolvlm() -> SmolVLMForConditionalGeneration:
    return SmolVLMForConditionalGeneration(
        SmolVLMConfig(
            vision_config={**CLIP, "image_size": 384}, text_config=LlamaConfig(**LLAMA),
            scale_factor=3,
            image_token_id=IMAGE,
        )
    )  # fmt: skip


def _onevision() -> LlavaOnevisionForConditionalGeneration:
    return LlavaOnevisionForConditionalGeneration(
        LlavaOnevisionConfig(
            vision_config=SiglipVisionConfig(**{**CLIP, "image_size": 384}, vision_use_head=False),
            text_config=QWEN2, image_token_index=IMAGE, video_token_index=4,
            image_grid_pinpoints=[[384, 384], [768, 768]],
        )
    )  # fmt: skip


def _mistral3() -> Mistral3ForConditionalGeneration:
    vision = {**CLIP, "image_size": 1540, "hidden_act": "silu"}
    return Mistral3ForConditionalGeneration(
        Mistral3Config(
            vision_config=PixtralVisionConfig(**vision),
            text_config=MistralConfig(**LLAMA, sliding_window=None),
            image_token_index=IMAGE, spatial_merge_size=2, vision_feature_layer=-1,
        )
    )  # fmt: skip


def _square(generator: torch.Generator) -> dict[str, Tensor]:
    return {"pixel_values": torch.randn(1, 3, SIDE, SIDE, generator=generator)}


def _crops(generator: torch.Generator) -> dict[str, Tensor]:
    pixels = torch.randn(1, 5, 3, SIDE, SIDE, generator=generator)
    return {"pixel_values": pixels, "image_sizes": torch.tensor([[2 * SIDE, 2 * SIDE]])}


def _patches(generator: torch.Generator) -> dict[str, Tensor]:
    side = 1008 // PATCH
    pixels = torch.randn(side**2, 3 * 2 * PATCH**2, generator=generator)
    return {"pixel_values": pixels, "image_grid_thw": torch.tensor([[1, side, side]])}


def _tiles(generator: torch.Generator) -> dict[str, Tensor]:
    return {"pixel_values": torch.randn(5, 3, 448, 448, generator=generator)}


def _split(generator: torch.Generator) -> dict[str, Tensor]:
    return {"pixel_values": torch.randn(1, 17, 3, 384, 384, generator=generator)}


def _stitched(generator: torch.Generator) -> dict[str, Tensor]:
    pixels = torch.randn(1, 5, 3, 384, 384, generator=generator)
    sizes, counts = torch.tensor([[768, 768]]), torch.tensor([1])
    return {"pixel_values": pixels, "image_sizes": sizes, "batch_num_images": counts}


def _native(generator: torch.Generator) -> dict[str, Tensor]:
    pixels = torch.randn(1, 3, 1008, 1008, generator=generator)
    return {"pixel_values": pixels, "image_sizes": torch.tensor([[1008, 1008]])}


SHAPES: Mapping[str, BenchShape] = {
    # 336 x 336 pixels
    "llava15": BenchShape(_llava15, _square, 576, (192, 128, 64), (2, 6, 10, 14), 3),
    # 672 x 672 pixels: 2880 cells and 48 newlines; the budgets of the papers
    "llava_next": BenchShape(_llava_next, _crops, 2928, (640, 320), (2, 6, 10, 14), 3),
    # 1008 x 1008 pixels: 36 x 36 cells; a third, two ninths and a ninth, as in LLaVA-1.5
    "qwen2_5_vl": BenchShape(_qwen2_5_vl, _patches, 1296, (432, 288, 144), (1, 5, 8, 12), 2, True),
    # 896 x 896 pixels: 4 tiles and the small copy, of 16 x 16 cells
    # 1536 x 1536 pixels: 16 tiles and the small copy, of 9 x 9 cells
    "smolvlm2": BenchShape(_smolvlm, _split, 1377, (459, 306, 153), (2, 6, 10, 14), 3),
    # 768 x 768 pixels: 27 x 27 and 54 x 54 cells, and 54 newlines
    "llava_onevision": BenchShape(_onevision, _stitched, 3699, (1215, 810, 405), (1, 5, 8, 12), 3),
    # 1008 x 1008 pixels: 36 x 36 cells
    "mistral3": BenchShape(_mistral3, _native, 1296, (432, 288, 144), (2, 6, 10, 14), 2),
    "internvl3": BenchShape(_internvl, _tiles, 1280, (427, 284, 142), (1, 5, 8, 12), 2),
}
# LLaVA-1.5 with an encoder of LLaVA-1.5's share, for the time to the first token
FIRST_TOKEN = BenchShape(lambda: _llava15(**SHALLOW_CLIP), _square, 576, (64,), (2, 6, 10, 14), 3)
