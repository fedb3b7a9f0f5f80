"""Limits on the number of pixels of an image, in the settings of an image processor."""

from math import isqrt
from typing import Any

from transformers import (
    GotOcr2ImageProcessorPil,
    Idefics3ImageProcessorPil,
    PixtralImageProcessorPil,
    Qwen2VLImageProcessorPil,
    SmolVLMImageProcessorPil,
)

# Image processors that scale the longer side to ``size.longest_edge``.
BY_LONGEST_EDGE = (Idefics3ImageProcessorPil, PixtralImageProcessorPil, SmolVLMImageProcessorPil)


def has_pixel_limits(images: Any) -> bool:
    """Whether an image processor keeps the aspect ratio and limits the number of pixels.

    Its ``size`` then holds areas, although their names speak of edges.
    """
    return isinstance(images, Qwen2VLImageProcessorPil)


def chooses_tiles(images: Any) -> bool:
    """Whether an image processor covers an image with as many tiles as fit its size and shape."""
    return isinstance(images, GotOcr2ImageProcessorPil)


def limit_pixels(images: Any, least: int | None, most: int | None) -> None:
    """Set the limits of an image processor.

    Args:
        images: Image processor; it is changed in place.
        least: Least number of pixels; None: as the processor has it.
        most: Largest number of pixels; None: as the processor has it.

    Raises:
        ValueError: If the processor has no such limits, or they contradict one another.
    """
    if has_pixel_limits(images):
        size = dict(images.size)
        least, most = _ordered(
            size["shortest_edge"] if least is None else least,
            size["longest_edge"] if most is None else most,
        )
        images.size = {**size, "shortest_edge": least, "longest_edge": most}
    elif chooses_tiles(images):
        area = images.size["height"] * images.size["width"]
        least, most = _ordered(
            images.min_patches * area if least is None else least,
            images.max_patches * area if most is None else most,
        )
        if most < area:
            raise ValueError(
                f"model.max_pixels must be at least {area}, the pixels of one tile, got {most}"
            )
        images.min_patches, images.max_patches = -(-least // area), most // area
    elif isinstance(images, BY_LONGEST_EDGE):
        if least is not None or most is None:
            raise ValueError(
                f"model.min_pixels must be null: {type(images).__name__} scales the longer side to "
                "one length"
            )
        images.size = {"longest_edge": isqrt(most)}  # of a square image
    else:
        raise ValueError(
            f"model.min_pixels and model.max_pixels must be null: {type(images).__name__} has no "
            "limits on the number of pixels"
        )


def _ordered(least: int, most: int) -> tuple[int, int]:
    if not 0 < least <= most:
        raise ValueError(
            "model.min_pixels must be positive and at most model.max_pixels, got "
            f"{least} and {most}"
        )
    return least, most
