"""Limits on the number of pixels, for image processors that make tiles or scale the longer side."""

import numpy as np
import pytest
from PIL import Image
from transformers import (
    Gemma3ImageProcessorPil,
    GotOcr2ImageProcessorPil,
    Idefics3ImageProcessorPil,
    PixtralImageProcessorPil,
    SmolVLMImageProcessorPil,
)

from mustdrop.models.image_scale import image_scale
from mustdrop.models.pixel_limits import limit_pixels

SIDE = 32
AREA = SIDE**2


def picture(height, width):
    return Image.fromarray(np.zeros((height, width, 3), dtype=np.uint8))


def tiles(**options):
    return GotOcr2ImageProcessorPil(size={"height": SIDE, "width": SIDE}, **options)


@pytest.mark.parametrize(
    ("least", "most", "count"),
    [
        (None, AREA, 1),
        (AREA, 2 * AREA, 1),
        (AREA, 6 * AREA, 5),
        (AREA, 12 * AREA, 10),  # 3 x 3 of them, and the small copy
        (AREA + 1, 12 * AREA, 10),  # at least two
    ],
)
def test_limits_decide_the_number_of_tiles(least, most, count):
    images = tiles(crop_to_patches=True, max_patches=12)
    limit_pixels(images, least, most)
    made = images([picture(100, 100)], return_tensors="pt")
    assert made["num_patches"].tolist() == [count]
    scale = ((count - (count > 1)) * AREA / 100**2) ** 0.5
    assert image_scale(images, (100, 100)) == pytest.approx(min(1.0, scale))


@pytest.mark.parametrize("kind", [Idefics3ImageProcessorPil, SmolVLMImageProcessorPil])
def test_a_limit_decides_the_longer_side(kind):
    images = kind(max_image_size={"longest_edge": SIDE})
    limit_pixels(images, None, 4 * AREA)
    assert images.size["longest_edge"] == 2 * SIDE
    made = images([[picture(50, 100)]], return_tensors="pt", return_row_col_info=True)
    assert (made["rows"], made["cols"]) == ([[1]], [[2]])
    assert made["pixel_values"].shape[:2] == (1, 3)


def test_a_limit_shrinks_images_of_any_size():
    images = PixtralImageProcessorPil(patch_size={"height": 4, "width": 4})
    limit_pixels(images, None, 4 * AREA)
    made = images([picture(50, 100)], return_tensors="pt")
    assert made["image_sizes"].tolist() == [[32, 64]]


@pytest.mark.parametrize(
    ("images", "limits", "message"),
    [
        (tiles(), (None, AREA - 1), "must be positive and at most"),
        (tiles(), (AREA - 9, AREA - 1), f"must be at least {AREA}, the pixels of one tile"),
        (SmolVLMImageProcessorPil(), (9, 99), "min_pixels must be null: SmolVLM.* one length"),
        (Gemma3ImageProcessorPil(), (None, 99), "Gemma3ImageProcessorPil has no limits"),
    ],
)
def test_limits_that_a_processor_does_not_have_are_refused(images, limits, message):
    with pytest.raises(ValueError, match=message):
        limit_pixels(images, *limits)
