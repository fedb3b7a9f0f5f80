"""Prompts of random text tokens and random pictures or videos, for a model without tokenizer."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedConfig

from mustdrop.models import adapter_for
from mustdrop.profiling.random_pixels import as_video, random_pixels, repeated_pixels

BEFORE, AFTER = 35, 30  # text tokens of a LLaVA-1.5 prompt in front of its images and behind them
# Pixels of a picture (height, width), for models whose number of vision tokens depends on it: with
# these, LLaVA-NeXT and InternVL get a small copy and four crops, and Qwen 36 x 36 cells.
SIZES = {
    "internvl": (896, 896), "idefics3": (1456, 1456), "smolvlm": (1536, 1536),
    "llava_next": (672, 672), "llava_onevision": (768, 768), "mistral3": (1008, 1008),
    "qwen2_vl": (1008, 1008), "qwen2_5_vl": (1008, 1008), "qwen3_vl": (1152, 1152),
    "qwen3_vl_moe": (1152, 1152),
}  # fmt: skip
USUAL_SIZE = (336, 336)
VIDEO_SIZE = (896, 896)  # 32 x 32 cells of Qwen2.5-VL a time step: 16,384 of 32 frames


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
        if self.frames and not config.model_type.startswith("qwen"):
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

    def inputs(self, batch: int) -> dict[str, Tensor]:
        """Inputs of the model: 35 words, the images with a word between them, 30 words."""
        config, device = self.model.config, self.model.device
        pixels = random_pixels(config, self.shown, self.size)
        if self.frames:
            pixels = as_video(config, pixels)
        # asked for by the adapter before they are known
        kinds = dict.fromkeys(("mm_token_type_ids", "token_type_ids"), torch.zeros(0))
        visual: Mapping[int, Any] = adapter_for(self.model).visual_inputs({**pixels, **kinds})
        slot = config.video_token_id if self.frames else config.image_token_id
        shown = visual[slot]
        generator = torch.Generator().manual_seed(2)
        vocabulary = min(config.get_text_config().vocab_size, 32000)
        runs = [len(image.cells) for image in shown]
        if self.frames and config.model_type.startswith("qwen3"):  # a time before each frame
            runs = [rows * columns for rows, columns in shown[0].grids]
        count = BEFORE + AFTER + len(runs) - 1
        words = torch.randint(6, vocabulary, (count,), generator=generator)
        words[words == slot] += 1
        parts = [words[:BEFORE]]
        for number, length in enumerate(runs):
            parts.append(torch.full((length,), slot))
            end = len(words) if number == len(runs) - 1 else BEFORE + number + 1
            parts.append(words[BEFORE + number : end])
        ids = torch.cat(parts).expand(batch, -1)
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        inputs |= repeated_pixels(pixels, batch)
        if config.model_type.startswith("qwen"):
            inputs["mm_token_type_ids"] = (ids == slot).long() * (2 if self.frames else 1)
        if config.model_type == "gemma3":
            inputs["token_type_ids"] = (ids == slot).long()
        if config.model_type == "paligemma":  # 0: the prompt; 1 would be an answer to learn from
            inputs["token_type_ids"] = torch.zeros_like(ids)
        return {name: value.to(device) for name, value in inputs.items()}


def usual_size(config: PreTrainedConfig, video: bool = False) -> tuple[int, int]:
    """Pixels of a picture or frame (height, width) that stands for a family."""
    return VIDEO_SIZE if video else SIZES.get(config.model_type, USUAL_SIZE)
