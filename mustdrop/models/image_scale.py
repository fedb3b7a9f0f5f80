"""How far an image processor shrinks an image, read from its settings. Makes no pixels."""

from math import sqrt
from typing import Any

from transformers.image_processing_utils import select_best_resolution
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import get_optimal_tiled_canvas

from mustdrop.models.pixel_limits import chooses_tiles, has_pixel_limits

# Setting of image processors whose tiles overlap or stand at chosen places.
TILING = ("do_pan_and_scan",)


def image_scale(images: Any, size: tuple[int, int]) -> float:
    """Factor by which an image processor scales the sides of an image, at most 1.

    An image that is enlarged gets no more detail, so its factor is 1.

    Args:
        images: Image processor.
        size: Width and height of the image.

    Raises:
        ValueError: If the rule of this image processor is not known.
    """
    return min(1.0, _scale(images, *size))


def _scale(images: Any, width: int, height: int) -> float:
    size = dict(images.size)
    if has_pixel_limits(images):
        return sqrt(size["longest_edge"] / (width * height))
    if chooses_tiles(images):
        tile = (size["height"], size["width"])
        columns, rows = get_optimal_tiled_canvas(
            (height, width), tile, images.min_patches, images.max_patches
        )
        return sqrt(columns * rows * tile[0] * tile[1] / (width * height))
    if getattr(images, "image_grid_pinpoints", None):
        rows, columns = select_best_resolution((height, width), images.image_grid_pinpoints)
        return min(columns / width, rows / height)
    if not any(getattr(images, name, None) for name in TILING):
        if "shortest_edge" in size:
            padded = getattr(images, "do_pad", None)
            return size["shortest_edge"] / (max if padded else min)(width, height)
        if "longest_edge" in size:
            return size["longest_edge"] / max(width, height)
        if {"height", "width"} <= set(size):  # the aspect ratio changes
            return sqrt(size["height"] * size["width"] / (width * height))
    raise ValueError(
        f"image=resized does not know how {type(images).__name__} scales an image, with the size "
        f"{size}"
    )
