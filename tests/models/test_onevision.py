"""LLaVA-OneVision: which pixels the slots of a stitched grid show, and what it refuses."""

import pytest
import torch
from families import FAMILIES, Image
from family_droppers import FITTING
from models import greedy
from omegaconf.errors import InterpolationResolutionError

from mustdrop import TokenDropper
from mustdrop.key_tokens.cls_attention import ClsAttention
from mustdrop.ledger import OFF_GRID
from mustdrop.masked import masked_logits, plain_inputs, relative_error
from mustdrop.models import adapter_for
from mustdrop.presets.compose import composed, resolved
from mustdrop.presets.planned import planned

MADE = FAMILIES["onevision"]


def silent():
    model = MADE.model()
    for name, weight in model.model.vision_tower.named_parameters():
        if "out_proj" in name:
            weight.data.zero_()
    return model


# (height, width) -> crops in rows and columns, patches cut away above and on the left, grid
STITCHED = {
    (24, 48): ((1, 2), (0, 0), (6, 12)),
    (16, 48): ((1, 2), (1, 0), (4, 12)),
    (48, 16): ((2, 1), (0, 1), (12, 4)),
    (72, 72): ((3, 3), (0, 0), (8, 8)),  # 18 x 18 patches, interpolated
}


@pytest.mark.parametrize("size", STITCHED)
def test_a_patch_of_a_crop_moves_the_cell_of_the_stitched_grid(size):
    (rows, columns), (top, left), grid = STITCHED[size]
    model = silent()
    adapter = adapter_for(model)
    inputs = MADE.inputs(model, (3, Image(*size), 7))
    ((shown,), _) = adapter.visual_inputs(inputs).values()
    assert shown.grids == [(6, 6), grid] and shown.tiles == [1, rows * columns]
    assert shown.pixels[1].shape[-2:] == (4 * (rows * 6 - 2 * top), 4 * (columns * 6 - 2 * left))
    before = plain_inputs(model, adapter, inputs)["inputs_embeds"][0, 3:-7]
    scale = (grid[0] / (rows * 6 - 2 * top), grid[1] / (columns * 6 - 2 * left))
    draw, moves = torch.Generator().manual_seed(0), 0
    for _ in range(12):
        crop, row, column = (
            int(torch.randint(most, (1,), generator=draw)) for most in (rows * columns, 6, 6)
        )
        changed = {name: value.clone() for name, value in inputs.items()}
        pixels = changed["pixel_values"][0, 1 + crop]
        pixels[:, row * 4 : row * 4 + 4, column * 4 : column * 4 + 4] += 3.0
        after = plain_inputs(model, adapter, changed)["inputs_embeds"][0, 3:-7]
        moved = (after - before).abs().amax(-1)
        at = (crop // columns * 6 + row - top, crop % columns * 6 + column - left)
        cell = [int((index + 0.5) * part) for index, part in zip(at, scale, strict=True)]
        if not (0 <= cell[0] < grid[0] and 0 <= cell[1] < grid[1] and min(at) >= 0):
            assert not moved.any()
        elif moved.any():  # interpolation skips some patches
            found = int(shown.cells[moved.argmax()]) - 36
            apart = abs(found // grid[1] - cell[0]) + abs(found % grid[1] - cell[1])
            assert apart == 0 if scale == (1, 1) else apart <= 2
            moves += 1
    assert moves >= 6


def test_an_image_next_to_others_is_not_cropped():
    model = MADE.model()
    inputs = MADE.inputs(model, (3, Image(40, 22), 2, Image(72, 72), 7), (2, Image(24, 48), 4))
    assert inputs["batch_num_images"].tolist() == [2, 1]
    images = adapter_for(model).visual_inputs(inputs)[model.config.image_token_id]
    assert [len(image.grids) for image in images] == [1, 1, 2]
    assert [int((image.cells == OFF_GRID).sum()) for image in images] == [1, 1, 6]
    inputs["image_sizes"] = inputs["image_sizes"][:2]
    with pytest.raises(ValueError, match="image_sizes must have one row per image: 3, got 2"):
        adapter_for(model).visual_inputs(inputs)


def test_a_small_copy_behind_the_crops_is_noticed():
    """Control: the cells of the stitched grid stand in front of those of the small copy."""
    model = MADE.model()
    inputs = MADE.inputs(model, MADE.prompts[0])
    with FITTING["average_pool"].attach(model) as run:
        tokens, logits = greedy(model, inputs)
    assert relative_error(logits[0], masked_logits(model, run, inputs, tokens, 0)) <= 1e-5
    ledger = run.ledgers[0]
    cells = ledger.cells.clone()
    shown = cells != OFF_GRID
    cells[shown] = cells[shown].roll(36)
    ledger.cells = cells
    assert relative_error(logits[0], masked_logits(model, run, inputs, tokens, 0)) > 1e-3


@pytest.mark.parametrize("family", ["onevision", "mistral3", "pixtral"])
@pytest.mark.parametrize(
    ("dropper", "does"),
    [
        (FITTING["local_merge"], "LocalMerge acts in"),
        (FITTING["visionzip"], "VisionZip reads attention in"),
        (TokenDropper(key_tokens=ClsAttention(), cls_attention="received"), "ClsAttention reads"),
    ],
)
def test_stage_1_inside_an_encoder_that_runs_whole_is_refused(family, dropper, does):
    model = FAMILIES[family].model()
    with pytest.raises(ValueError, match=rf"^{does}.* the encoder, which runs whole here: the .*;"):
        dropper.attach(model).__enter__()


@pytest.mark.parametrize("model", ["pixtral_12b", "llava_onevision_7b"])
def test_a_budget_is_planned_where_the_encoder_runs_whole(model):
    """Strategies that act at ``projected`` need no encoder blocks; ToMe merges in nothing else."""
    chosen = (f"model={model}", "budget=t64", "benchmark=textvqa")
    assert planned(resolved(composed(*chosen, "method=divprune"))) == 64
    with pytest.raises((ValueError, InterpolationResolutionError), match="this model runs whole"):
        planned(resolved(composed(*chosen, "method=tome")))
