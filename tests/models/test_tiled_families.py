"""Families whose vision tokens show several patches, most of them of tiles."""

from dataclasses import dataclass, field

import pytest
import torch
from families import FAMILIES
from family_droppers import FITTING, WHOLE
from models import greedy
from tiled_families import TILED

from mustdrop import Reduction, TokenDropper, VisionStrategy
from mustdrop.engine.gathered_layout import GroupedLayout, RasterLayout
from mustdrop.masked import masked_logits, relative_error
from mustdrop.models import adapter_for

OF_TILES = [name for name in TILED if name not in WHOLE]
GATHERED = [*OF_TILES, "gemma3"]  # the model makes one state of the patches of a cell


def worst(name: str, number: int, change) -> float:
    """Error of a prompt of two or more tiles, after a change of what the run recorded."""
    made = FAMILIES[name]
    model = made.model()
    inputs = made.inputs(model, *made.prompts)
    with FITTING["local_merge"].attach(model) as run:
        tokens, logits = greedy(model, inputs)
    change(run.ledgers[number])
    return relative_error(logits[number], masked_logits(model, run, inputs, tokens, number))


@pytest.mark.parametrize("family", OF_TILES)
def test_a_small_copy_that_is_taken_for_the_first_tile_is_noticed(family):
    """Control: the cells of the last tile, the small copy, move in front of the others."""

    def first(ledger):
        tiles = ledger.cells.view(len(ledger.grids), -1)
        ledger.cells = tiles.roll(1, 0).flatten()

    assert worst(family, 0, first) > 1e-3
    assert worst(family, 0, lambda ledger: None) <= 1e-5


@pytest.mark.parametrize("family", GATHERED)
def test_patches_that_are_not_put_back_in_raster_order_are_noticed(family, monkeypatch):
    """Control: the model gets the patches behind the encoder cell by cell."""

    def whole(layout, states, front):
        ahead, tokens = layout.split(states, front)
        return layout.join(ahead, layout.expand(0, tokens))

    monkeypatch.setattr(GroupedLayout, "whole", whole)
    assert worst(family, 0, lambda ledger: None) > 1e-3


@dataclass(frozen=True, eq=False)
class ReadsCls(VisionStrategy):
    """Reads the attention of [CLS] in block 2, and keeps all tokens."""

    places = ("features",)
    cls_attention_blocks = (2,)
    read: list = field(default_factory=list)

    def reduce(self, view) -> Reduction:
        self.read.append(view.cls_attention(2))
        return Reduction(torch.arange(len(view.cells)))


@pytest.mark.parametrize(
    ("family", "kind"), [*((family, "received") for family in GATHERED), ("internvl", "cls")]
)
def test_a_cell_has_the_mean_of_the_attention_of_its_patches(family, kind):
    made = FAMILIES[family]
    model = made.model("eager")
    (encoder,) = adapter_for(model).encoders
    inputs, strategy = made.inputs(model, made.prompts[0]), ReadsCls()
    with torch.inference_mode(), TokenDropper(vision=strategy, cls_attention=kind).attach(model):
        maps = []
        hook = encoder.attention(encoder.blocks[2]).register_forward_hook(
            lambda module, args, output: maps.append(output[1])
        )
        model(**inputs)
        hook.remove()
    for tile, cells in zip(maps[0], strategy.read, strict=True):  # [heads, rows, columns]
        cls, unit = int(encoder.has_cls), encoder.unit
        row = tile[:, 0, cls:] if kind == "cls" else tile[:, cls:, cls:].mean(1)
        side = int(row.shape[1] ** 0.5)
        grid = row.view(len(row), side // unit, unit, side // unit, unit).mean((2, 4))
        assert torch.allclose(cells, grid.flatten(1), atol=1e-6)


def test_tiles_with_padding_are_refused():
    made = TILED["smolvlm"]
    model = made.model()
    inputs = made.inputs(model, made.prompts[0])
    mask = torch.ones_like(inputs["pixel_values"][:, :, 0])
    adapter_for(model).visual_inputs({**inputs, "pixel_attention_mask": mask})
    mask[0, 1, 20:] = 0
    with pytest.raises(ValueError, match="must be 1 on all pixels of a tile"):
        adapter_for(model).visual_inputs({**inputs, "pixel_attention_mask": mask})


def test_cells_that_do_not_fill_a_tile_are_refused():
    model = TILED["smolvlm"].model()
    model.config.scale_factor = 3
    with pytest.raises(ValueError, match="scale_factor must divide the 8 patches of a side, got 3"):
        TokenDropper().attach(model).__enter__()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("vision_feature_layer", -2), ("vision_feature_select_strategy", "full"),
        ("downsample_ratio", 0.25),
    ],
)  # fmt: skip
def test_settings_that_internvl_does_not_have_are_refused(field, value):
    model = TILED["internvl"].model()
    setattr(model.config, field, value)
    with pytest.raises(ValueError, match=f"{field} must be .*, got {value!r}"):
        TokenDropper().attach(model).__enter__()


def test_nothing_is_moved_where_no_token_has_left():
    model = TILED["internvl"].model()
    (encoder,) = adapter_for(model).encoders
    layout, states = RasterLayout(encoder, [], []), torch.rand(2, 17, 3)
    assert layout.whole(states, 1) is states
