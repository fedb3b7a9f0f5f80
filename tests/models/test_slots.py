"""Which slot shows which cell, by pixels: with attention silenced, a cell moves its slot alone.

The masked model takes the map from the ledger, so it would not notice a wrong one.
"""

import pytest
import torch
from families import FAMILIES, FRAMES, Image, Video

from mustdrop.engine.prompt_vision import assign, coordinates
from mustdrop.masked import plain_inputs
from mustdrop.models import adapter_for

TILES = [(3, Image(32, 16), 7), (2, Image(16, 16), 2, Video(2, 16, 16), 2, Image(16, 48), 5)]
ANY = [(3, Image(40, 48), 7), (2, Image(16, 24), 2, Image(24, 40), 2, Image(40, 16), 5)]
SHAPES = {
    "gemma3": [(3, Image(16, 16), 7), (2, Image(16, 16), 2, Image(16, 16), 5)],
    "idefics3": TILES,
    "smolvlm": TILES,
    "mistral3": ANY,
    "pixtral": ANY,
    # images next to others, which are not stitched from crops, and videos
    "onevision": [
        (3, Video(3, 16, 16), 7),
        (2, Image(40, 22), 2, Image(24, 24), 2, Image(72, 72), 5),
    ],
    "internvl": TILES,
    "llava_next": [(3, Image(24, 48), 7), (2, Image(40, 22), 2, Image(24, 24), 5)],
    "paligemma": [(3, Image(16, 16), 7), (2, Image(16, 16), 2, Image(16, 16), 5)],
    "qwen2_5_vl": [(3, Image(40, 48), 7), (2, Image(16, 24), 2, Video(4, 24, 40), 5)],
    "qwen2_vl": [(3, Image(40, 48), 7), (2, Image(16, 24), 2, Video(4, 24, 40), 5)],
    "qwen3_vl": [(3, Image(40, 48), 7), (2, Image(16, 24), 2, Video(4, 24, 40), 5)],
    "video_llava": [
        (3, Video(FRAMES, 16, 16), 7),
        (2, Video(FRAMES, 16, 16), 2, Image(16, 16), 5),
    ],
}
SILENT = ("out_proj", "attn.proj", "projection_layer", "attention.o_proj")


def change(family: str, pixels: torch.Tensor, grid: tuple[int, int], row: int, column: int) -> None:
    """Change the pixels of one cell in place."""
    if family.startswith("qwen"):  # the four patches of a cell are four rows
        first = 4 * (row * grid[1] + column)
        pixels[first : first + 4] += 3.0
    else:
        height, width = (side // count for side, count in zip(pixels.shape[-2:], grid, strict=True))
        pixels[:, row * height : (row + 1) * height, column * width : (column + 1) * width] += 3.0


@pytest.mark.parametrize("family", SHAPES)
def test_a_cell_moves_the_slot_that_the_map_names(family):
    made = FAMILIES[family]
    model = made.model()
    adapter = adapter_for(model)
    for encoder in adapter.encoders:
        for name, weight in encoder.module.named_parameters():
            if any(part in name for part in SILENT):
                weight.data.zero_()
    inputs = made.inputs(model, *SHAPES[family])
    visual = adapter.visual_inputs(inputs)
    ids = inputs["input_ids"]
    shown = assign(list(ids.where(torch.isin(ids, torch.tensor([*visual])), -1)), visual)
    before = plain_inputs(model, adapter, inputs)["inputs_embeds"]
    checked = cut = 0
    for number, prompt in enumerate(shown):
        slots = torch.isin(ids[number], torch.tensor([*visual])).nonzero().flatten()
        place = coordinates(prompt.grids, prompt.cells)
        for image, (rows, columns) in enumerate(prompt.grids):
            for row, column in {(0, 0), (rows - 1, columns - 1), (rows // 2, 1), (1, columns // 2)}:
                new = {name: value.clone() for name, value in inputs.items()}
                again = adapter.visual_inputs(new)
                again = assign(list(ids.where(torch.isin(ids, torch.tensor([*again])), -1)), again)
                change(family, again[number].pixels[image], (rows, columns), row, column)
                after = plain_inputs(model, adapter, new)["inputs_embeds"]
                moved = (after - before).abs().amax(-1) > 1e-6
                named = (place == torch.tensor([image, row, column])).all(1)
                expected = torch.zeros_like(moved)
                expected[number, slots[named]] = True
                assert torch.equal(moved, expected)
                checked, cut = checked + int(named.any()), cut + int(not named.any())
    assert checked >= 12 and (cut > 0) == (family == "llava_next")
