"""Pixels of random pictures, in the form that the image processor of a model's family returns.

They are drawn as numbers, so that neither a processor nor PIL is needed.
"""

from collections.abc import Mapping
from typing import Any

import torch
from einops import rearrange
from torch import Tensor
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import get_optimal_tiled_canvas
from transformers.models.llava_next.modeling_llava_next import get_anyres_image_grid_shape

MOST_TILES = 12  # of a picture, without its small copy, as in InternVL's checkpoints
FLAT = 0.5  # of the upper half of a picture, so that windows can merge


def random_pixels(config: Any, images: int, size: tuple[int, int]) -> dict[str, Tensor]:
    """Draw the pixels of the images of one prompt.

    Args:
        config: Config of the model.
        images: Number of images.
        size: Pixels of a picture as (height, width); a fixed size of the encoder takes precedence.

    Returns:
        Arguments of the model: pixel_values, and what describes them in the family.
    """
    vision, generator = config.vision_config, torch.Generator().manual_seed(0)
    if config.model_type.startswith("qwen"):
        return _patches(vision, images, size, generator)
    if vision.model_type == "pixtral":
        return _any_size(config, images, size, generator)
    side = vision.image_size
    if config.model_type == "internvl":
        return _tiles(side[0], images, size, generator)
    if config.model_type in ("idefics3", "smolvlm"):
        shape = (-(-size[0] // side), -(-size[1] // side))
        small, tiles = _cut(images, shape, side, generator)
        shown = tiles if shape == (1, 1) else torch.cat([tiles, small], 1)
        return {"pixel_values": shown.flatten(0, 1)[None]}
    if config.model_type == "llava_onevision" and images > 1:  # these are not cropped
        small = _halved(torch.randn(images, 1, 3, side, side, generator=generator))
        counts = torch.tensor([images])
        return {
            "pixel_values": small, "image_sizes": torch.tensor([size] * images),
            "batch_num_images": counts,
        }  # fmt: skip
    if config.model_type not in ("llava_next", "llava_onevision"):
        name = "pixel_values_images" if config.model_type == "video_llava" else "pixel_values"
        return {name: _halved(torch.randn(images, 3, side, side, generator=generator))}
    rows, columns = get_anyres_image_grid_shape(size, config.image_grid_pinpoints, side)
    small, crops = _cut(images, (rows, columns), side, generator)
    sizes = torch.tensor([size] * images)
    return {"pixel_values": torch.cat([small, crops], 1), "image_sizes": sizes}


def as_video(config: Any, pixels: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """One video of Qwen's whose time steps are these pictures; it lasts a second per step."""
    grid = pixels["image_grid_thw"][:1].clone()
    grid[:, 0] = len(pixels["image_grid_thw"])
    video = {"pixel_values_videos": pixels["pixel_values"], "video_grid_thw": grid}
    if config.model_type == "qwen2_5_vl":
        video["second_per_grid_ts"] = torch.ones(1)
    return video


def repeated_pixels(pixels: Mapping[str, Tensor], count: int) -> dict[str, Tensor]:
    """Pixels of ``count`` prompts that all show the images of one."""
    return {name: torch.cat([value] * count) for name, value in pixels.items()}


def _halved(pictures: Tensor) -> Tensor:
    """The pictures with an upper half of one colour."""
    pictures[..., : pictures.shape[-2] // 2, :] = FLAT
    return pictures


def _cut(
    images: int, shape: tuple[int, int], side: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Small copies [images, 1, 3, side, side] and the crops that tile each picture, row by row."""
    height, width = (count * side for count in shape)
    whole = _halved(torch.randn(images, 3, height, width, generator=generator))
    crops = rearrange(whole, "i c (r h) (n w) -> i (r n) c h w", r=shape[0], n=shape[1])
    return _halved(torch.randn(images, 1, 3, side, side, generator=generator)), crops


def _tiles(
    side: int, images: int, size: tuple[int, int], generator: torch.Generator
) -> dict[str, Tensor]:
    """Tiles of InternVL's pictures; behind several stands the whole picture in small."""
    columns, rows = get_optimal_tiled_canvas(size, (side, side), 1, MOST_TILES)
    small, tiles = _cut(images, (rows, columns), side, generator)
    shown = tiles if rows * columns == 1 else torch.cat([tiles, small], 1)
    return {"pixel_values": shown.flatten(0, 1)}


def _any_size(
    config: Any, images: int, size: tuple[int, int], generator: torch.Generator
) -> dict[str, Tensor]:
    """Pictures for Pixtral's encoder; sides are rounded to whole cells."""
    cell = config.vision_config.patch_size * getattr(config, "spatial_merge_size", 1)
    height, width = (max(1, round(pixels / cell)) * cell for pixels in size)
    pixels = _halved(torch.randn(images, 3, height, width, generator=generator))
    return {"pixel_values": pixels, "image_sizes": torch.tensor([[height, width]] * images)}


def _patches(
    vision: Any, images: int, size: tuple[int, int], generator: torch.Generator
) -> dict[str, Tensor]:
    """Patches of Qwen's pictures, cell after cell; sides are rounded to whole cells."""
    unit, side = vision.spatial_merge_size, vision.patch_size
    rows, columns = (max(1, round(pixels / (unit * side))) * unit for pixels in size)
    channels = 3 * vision.temporal_patch_size * side**2
    patches = torch.randn(images, rows * columns, channels, generator=generator)
    patches[:, : rows * columns // 2] = FLAT
    grids = torch.tensor([[1, rows, columns]] * images)
    return {"pixel_values": patches.flatten(0, 1), "image_grid_thw": grids}
