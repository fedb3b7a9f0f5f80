"""Numbers of vision tokens at the sizes of released models, against transformers' processors."""

from random import Random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from real_grids import PATCH, PINPOINTS, SIDE, llava_next, qwen2_5_vl
from transformers import (
    LlavaNextImageProcessorPil,
    LlavaNextProcessor,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessorPil,
)

from mustdrop.ledger import OFF_GRID
from mustdrop.models import adapter_for
from mustdrop.models.base import VisualInput
from mustdrop.pocket import build_processor

# height, width; with the shapes that fill a set of crops, and others
SHAPES = [
    (672, 672), (336, 672), (672, 336), (336, 1008), (1008, 336), (336, 336), (480, 640),
    (640, 480), (100, 90), (1080, 1920), (200, 1500), (1500, 200),
]  # fmt: skip


@pytest.fixture(scope="module")
def next_processor():
    images = LlavaNextImageProcessorPil(
        size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE},
        image_grid_pinpoints=PINPOINTS,
    )  # fmt: skip
    return LlavaNextProcessor(
        images, build_processor().tokenizer, patch_size=PATCH,
        vision_feature_select_strategy="default", num_additional_image_tokens=1,
    )  # fmt: skip


def picture(height: int, width: int) -> Image.Image:
    return Image.fromarray(np.zeros((height, width, 3), dtype=np.uint8))


def next_image(height: int, width: int, pixels: torch.Tensor) -> VisualInput:
    adapter = adapter_for(llava_next())
    inputs = {"pixel_values": pixels, "image_sizes": torch.tensor([[height, width]])}
    ((image,),) = adapter.visual_inputs(inputs).values()
    return image


def no_pixels() -> torch.Tensor:
    """Pixels of more crops than any picture has; nothing is stored."""
    return torch.empty(1, 9, 3, SIDE, SIDE, device="meta")


def counts(image: VisualInput) -> tuple[int, int]:
    """Numbers of cells and of newlines."""
    newlines = int((image.cells == OFF_GRID).sum())
    return len(image.cells) - newlines, newlines


def test_a_square_of_llava_next_has_2880_cells_and_48_newlines():
    """The small copy and four crops of 24 x 24 cells; the crops make 48 rows."""
    for side in (672, 1000):
        assert counts(next_image(side, side, no_pixels())) == (5 * 576, 48)


def test_other_shapes_of_llava_next_have_fewer():
    for height, width in SHAPES[1:]:
        if height != width:
            cells, newlines = counts(next_image(height, width, no_pixels()))
            assert 576 < cells < 2880
            rows = (cells - 576) / newlines
            assert rows == int(rows)  # each row of the picture ends in a newline
    # two crops side by side, and three
    assert counts(next_image(336, 672, no_pixels())) == (576 + 24 * 48, 24)
    assert counts(next_image(336, 1008, no_pixels())) == (576 + 24 * 72, 24)


@pytest.mark.parametrize(("height", "width"), SHAPES)
def test_llava_next_has_the_slots_that_its_processor_makes(next_processor, height, width):
    inputs = next_processor(
        text=["<image> word"], images=[picture(height, width)], return_tensors="pt"
    )
    slots = int((inputs["input_ids"] == next_processor.image_token_id).sum())
    image = next_image(height, width, inputs["pixel_values"])
    assert inputs["image_sizes"].tolist() == [[height, width]]
    assert len(image.cells) == slots
    assert len(image.grids) == len(image.pixels) == inputs["pixel_values"].shape[1]


def test_llava_next_has_the_slots_of_its_processor_at_random_sizes(next_processor):
    draw = Random(0)
    sizes = [[draw.randint(60, 2000), draw.randint(60, 2000)] for _ in range(200)]
    expected = next_processor._get_num_multimodal_tokens(image_sizes=sizes)["num_image_tokens"]
    assert [len(next_image(*size, no_pixels()).cells) for size in sizes] == expected


@pytest.mark.parametrize("most", [1003520, 1605632])
@pytest.mark.parametrize(("height", "width"), SHAPES)
def test_qwen_has_the_slots_that_its_processor_makes(height, width, most):
    images = Qwen2VLImageProcessorPil(
        patch_size=PATCH, merge_size=2, size={"shortest_edge": 3136, "longest_edge": most}
    )
    inputs = images([picture(height, width)], return_tensors="pt")
    # the whole processor needs torchvision, for videos
    processor = SimpleNamespace(image_processor=images, image_token="-")
    slots = len(Qwen2_5_VLProcessor.replace_image_token(processor, inputs, 0))
    adapter = adapter_for(qwen2_5_vl())
    given = {**inputs, "mm_token_type_ids": torch.zeros(1, 1)}
    (image,), videos = adapter.visual_inputs(given).values()
    ((rows, columns),) = image.grids
    assert counts(image) == (slots, 0) and not videos
    assert slots == rows * columns <= most // 28**2
    if height * width <= most:  # sides are rounded to cells of 28 x 28 pixels
        assert (rows, columns) == (round(height / 28), round(width / 28))
