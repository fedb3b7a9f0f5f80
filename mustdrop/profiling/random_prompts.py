"""Prompts of random text tokens and random pictures, for a model without files of a tokenizer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import (
    CLIPImageProcessorPil,
    LlavaNextImageProcessorPil,
    PreTrainedConfig,
    Qwen2VLImageProcessorPil,
    VideoLlavaImageProcessor,
)

from mustdrop.models import adapter_for

BEFORE, AFTER = 35, 30  # text tokens of a LLaVA-1.5 prompt in front of its images and behind them
# Pixels of a picture (height, width), for models whose number of vision tokens depends on it: with
# these, LLaVA-NeXT gets its small copy and four crops, and Qwen2.5-VL 36 x 36 cells.
SIZES = {"llava_next": (672, 672), "qwen2_vl": (1008, 1008), "qwen2_5_vl": (1008, 1008)}
USUAL_SIZE = (336, 336)


def image_processor(config: Any) -> Any:
    """Image processor of a model's family, with the sizes of the model and PIL as its backend."""
    vision = config.vision_config
    if config.model_type.startswith("qwen2"):
        cell = (vision.patch_size * vision.spatial_merge_size) ** 2
        limits = {"shortest_edge": 4 * cell, "longest_edge": 16384 * cell}  # the checkpoint's
        return Qwen2VLImageProcessorPil(patch_size=vision.patch_size, size=limits)
    side = vision.image_size
    sizes: dict[str, Any] = {
        "size": {"shortest_edge": side},
        "crop_size": {"height": side, "width": side},
    }
    if config.model_type == "video_llava":
        return VideoLlavaImageProcessor(**sizes)
    if config.model_type == "llava_next":
        return LlavaNextImageProcessorPil(**sizes, image_grid_pinpoints=config.image_grid_pinpoints)
    return CLIPImageProcessorPil(**sizes)


@dataclass(frozen=True, eq=False)
class RandomPrompts:
    """Prompts of text tokens and pictures for a model without tokenizer.

    All prompts of a batch are the same, so that no padding and no difference in length enters.

    Attributes:
        model: Model that the prompts are for.
        images: Number of images of a prompt.
        size: Pixels of a picture as (height, width).
    """

    model: Any
    images: int
    size: tuple[int, int]

    def pictures(self, batch: int) -> list[list[Image.Image]]:
        """Pictures of each prompt; their upper half has one colour, so that windows can merge."""
        drawn = np.random.default_rng(0).integers(0, 256, (self.images, *self.size, 3), np.uint8)
        drawn[:, : self.size[0] // 2] = 128
        return [[Image.fromarray(picture) for picture in drawn] for _ in range(batch)]

    def pixels(self, pictures: Sequence[Sequence[Image.Image]]) -> dict[str, Tensor]:
        """Run the image processor."""
        flat = [picture for shown in pictures for picture in shown]
        return dict(image_processor(self.model.config)(images=flat, return_tensors="pt"))

    def inputs(self, batch: int) -> dict[str, Tensor]:
        """Inputs of the model: 35 words, the images with a word between them, 30 words."""
        config, device = self.model.config, self.model.device
        pixels: dict[str, Tensor] = self.pixels(self.pictures(batch))
        kinds = {"mm_token_type_ids": torch.zeros(0)}  # asked for by the adapter before it is known
        visual: Mapping[int, Any] = adapter_for(self.model).visual_inputs({**pixels, **kinds})
        shown = visual[config.image_token_id][: self.images]
        generator = torch.Generator().manual_seed(2)
        vocabulary = min(config.get_text_config().vocab_size, 32000)
        count = BEFORE + AFTER + self.images - 1
        words = torch.randint(6, vocabulary, (count,), generator=generator)
        words[words == config.image_token_id] += 1
        parts = [words[:BEFORE]]
        for number, image in enumerate(shown):
            parts.append(torch.full((len(image.cells),), config.image_token_id))
            end = len(words) if number == self.images - 1 else BEFORE + number + 1
            parts.append(words[BEFORE + number : end])
        ids = torch.cat(parts).expand(batch, -1)
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), **pixels}
        if config.model_type.startswith("qwen2"):
            inputs["mm_token_type_ids"] = (ids == config.image_token_id).long()
        return {name: value.to(device) for name, value in inputs.items()}


def usual_size(config: PreTrainedConfig) -> tuple[int, int]:
    """Pixels of a picture (height, width) that stands for a family."""
    return SIZES.get(config.model_type, USUAL_SIZE)
