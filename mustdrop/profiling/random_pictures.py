"""Random pictures, and the work of an image processor on them. Knows no model."""

from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor
from transformers import (
    CLIPImageProcessorPil,
    GotOcr2ImageProcessorPil,
    LlavaNextImageProcessorPil,
    Qwen2VLImageProcessorPil,
    SiglipImageProcessorPil,
    VideoLlavaImageProcessor,
)

from mustdrop.profiling.random_pixels import MOST_TILES


def image_processor(config: Any) -> Any:
    """Image processor of a model's family, with the sizes of the model and PIL as its backend."""
    vision = config.vision_config
    if config.model_type.startswith("qwen"):
        cell = (vision.patch_size * vision.spatial_merge_size) ** 2
        limits = {"shortest_edge": 4 * cell, "longest_edge": 16384 * cell}  # the checkpoint's
        return Qwen2VLImageProcessorPil(patch_size=vision.patch_size, size=limits)
    side = vision.image_size
    if config.model_type in ("gemma3", "paligemma"):
        return SiglipImageProcessorPil(size={"height": side, "width": side})
    if config.model_type == "internvl":
        tile = {"height": side[0], "width": side[1]}
        return GotOcr2ImageProcessorPil(size=tile, crop_to_patches=True, max_patches=MOST_TILES)
    sizes: dict[str, Any] = {
        "size": {"shortest_edge": side},
        "crop_size": {"height": side, "width": side},
    }
    if config.model_type == "video_llava":
        return VideoLlavaImageProcessor(**sizes)
    if config.model_type == "llava_next":
        return LlavaNextImageProcessorPil(**sizes, image_grid_pinpoints=config.image_grid_pinpoints)
    return CLIPImageProcessorPil(**sizes)


def random_pictures(count: int, size: tuple[int, int]) -> list[Image.Image]:
    """Pictures of (height, width) pixels; their upper half has one colour."""
    drawn = np.random.default_rng(0).integers(0, 256, (count, *size, 3), np.uint8)
    drawn[:, : size[0] // 2] = 128
    return [Image.fromarray(picture) for picture in drawn]


def processed(config: Any, pictures: list[Image.Image]) -> dict[str, Tensor]:
    """Run the image processor; counts of tiles are left out, which processors write as slots."""
    made = dict(image_processor(config)(images=pictures, return_tensors="pt"))
    return {name: value for name, value in made.items() if name != "num_patches"}
