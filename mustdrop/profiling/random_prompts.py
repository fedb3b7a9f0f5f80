"""Prompts of random text tokens and random pictures or videos, for a model without tokenizer."""

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
)

from mustdrop.models import adapter_for

BEFORE, AFTER = 35, 30  # text tokens of a LLaVA-1.5 prompt in front of its images and behind them
# Pixels of a picture (height, width), for models whose number of vision tokens depends on it: with
# these, LLaVA-NeXT gets its small copy and four crops, and Qwen2.5-VL 36 x 36 cells.
SIZES = {"llava_next": (672, 672), "qwen2_vl": (1008, 1008), "qwen2_5_vl": (1008, 1008)}
USUAL_SIZE = (336, 336)
VIDEO_SIZE = (896, 896)  # 32 x 32 cells of Qwen2.5-VL a time step: 16,384 of 32 frames


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
    if config.model_type == "llava_next":
        return LlavaNextImageProcessorPil(**sizes, image_grid_pinpoints=config.image_grid_pinpoints)
    return CLIPImageProcessorPil(**sizes)


@dataclass(frozen=True, eq=False)
class RandomPrompts:
    """Prompts of text tokens and pictures, or one video, for a model without tokenizer.

    All prompts of a batch are the same, so that no padding and no difference in length enters.
    Frames of a video that share a time step are equal.

    Attributes:
        model: Model that the prompts are for.
        images: Number of images of a prompt.
        size: Pixels of a picture or frame as (height, width).
        frames: Number of frames of the video that a prompt shows in place of images; 0: none.

    Raises:
        ValueError: If the model reads no videos, or no such number of frames.
    """

    model: Any
    images: int
    size: tuple[int, int]
    frames: int = 0

    def __post_init__(self) -> None:
        config = self.model.config
        if self.frames and not config.model_type.startswith("qwen2"):
            raise ValueError(
                f"profile.frames needs a model that reads videos (Qwen-VL), got {config.model_type}"
            )
        if self.frames % self.frames_per_step:
            raise ValueError(
                f"profile.frames must be a multiple of {self.frames_per_step}, which make a time "
                f"step of this model, got {self.frames}"
            )

    @property
    def frames_per_step(self) -> int:
        """Number of frames that the encoder reads together."""
        return self.model.config.vision_config.temporal_patch_size if self.frames else 1

    @property
    def shown(self) -> int:
        """Number of pictures of a prompt, or of time steps of its video."""
        return self.frames // self.frames_per_step if self.frames else self.images

    def pictures(self, batch: int) -> list[list[Image.Image]]:
        """Pictures of each prompt; their upper half has one colour, so that windows can merge."""
        drawn = np.random.default_rng(0).integers(0, 256, (self.shown, *self.size, 3), np.uint8)
        drawn[:, : self.size[0] // 2] = 128
        return [[Image.fromarray(picture) for picture in drawn] for _ in range(batch)]

    def pixels(self, pictures: Sequence[Sequence[Image.Image]]) -> dict[str, Tensor]:
        """Run the image processor; a picture of a video becomes all frames of a time step."""
        flat = [picture for shown in pictures for picture in shown]
        made = dict(image_processor(self.model.config)(images=flat, return_tensors="pt"))
        if not self.frames:
            return made
        grid = made["image_grid_thw"][:: self.shown].clone()
        grid[:, 0] = self.shown
        video = {"pixel_values_videos": made["pixel_values"], "video_grid_thw": grid}
        if self.model.config.model_type == "qwen2_5_vl":
            video["second_per_grid_ts"] = torch.ones(len(grid))
        return video

    def inputs(self, batch: int) -> dict[str, Tensor]:
        """Inputs of the model: 35 words, the images with a word between them, 30 words."""
        config, device = self.model.config, self.model.device
        pixels: dict[str, Tensor] = self.pixels(self.pictures(batch))
        kinds = {"mm_token_type_ids": torch.zeros(0)}  # asked for by the adapter before it is known
        visual: Mapping[int, Any] = adapter_for(self.model).visual_inputs({**pixels, **kinds})
        slot = config.video_token_id if self.frames else config.image_token_id
        shown = visual[slot][: 1 if self.frames else self.images]
        generator = torch.Generator().manual_seed(2)
        vocabulary = min(config.get_text_config().vocab_size, 32000)
        count = BEFORE + AFTER + len(shown) - 1
        words = torch.randint(6, vocabulary, (count,), generator=generator)
        words[words == slot] += 1
        parts = [words[:BEFORE]]
        for number, image in enumerate(shown):
            parts.append(torch.full((len(image.cells),), slot))
            end = len(words) if number == len(shown) - 1 else BEFORE + number + 1
            parts.append(words[BEFORE + number : end])
        ids = torch.cat(parts).expand(batch, -1)
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), **pixels}
        if config.model_type.startswith("qwen2"):
            inputs["mm_token_type_ids"] = (ids == slot).long() * (2 if self.frames else 1)
        return {name: value.to(device) for name, value in inputs.items()}


def usual_size(config: PreTrainedConfig, video: bool = False) -> tuple[int, int]:
    """Pixels of a picture or frame (height, width) that stands for a family."""
    return VIDEO_SIZE if video else SIZES.get(config.model_type, USUAL_SIZE)
