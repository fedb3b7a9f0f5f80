"""What adapters say of the slots of a prompt: [CLS], newlines, crops that are cut, packed cells."""

import pytest
import torch
from droppers import DROPPERS
from families import FAMILIES, Image
from models import batch, greedy, prompt, tiny_llava
from transformers import LlavaConfig, LlavaForConditionalGeneration, ViTConfig

from mustdrop import Reduction, TokenDropper, VisionStrategy
from mustdrop.ledger import OFF_GRID
from mustdrop.masked import masked_logits, relative_error
from mustdrop.models import VisualInput, adapter_for


@pytest.fixture
def keeps_cls():
    """A LLaVA whose encoder hands on its [CLS] too, as each frame of Video-LLaVA does."""
    model = tiny_llava()
    model.config.vision_feature_select_strategy = "full"
    model.config.image_seq_length = 37
    return model


def test_facts_of_llava():
    adapter = adapter_for(tiny_llava(grid=6, layers=6, blocks=4))
    assert adapter.facts.depth == 6 and adapter.facts.blocks == 4
    assert adapter.facts.grid == (6, 6) and adapter.image_tokens == 36
    assert adapter.facts.has_cls and not adapter.keeps_cls(adapter.encoders[0])
    assert adapter.facts.feature_block == 2  # hidden_states[-2] of 4 blocks: the output of block 2
    (images,) = adapter.visual_inputs({"pixel_values": torch.zeros(2, 3, 24, 24)}).values()
    assert [image.cells.tolist() for image in images] == [list(range(36))] * 2


@pytest.mark.parametrize("name", ["fastv", "cls_topk", "local_merge", "all_stages", "uniform_grid"])
def test_frames_that_keep_their_cls(keeps_cls, name):
    model, pixels = keeps_cls, torch.zeros(1, 3, 24, 24)
    (images,) = adapter_for(model).visual_inputs({"pixel_values": pixels}).values()
    assert images[0].cells[0] == OFF_GRID
    inputs = batch(prompt(model, flat=0.5), prompt(model, before=1, images=2, seed=3, flat=0.2))
    dropper = DROPPERS[name]
    with dropper.attach(model) as run:
        tokens, logits = greedy(model, inputs)
    for number, ledger in enumerate(run.ledgers):
        expected = masked_logits(model, run, inputs, tokens, number)
        assert relative_error(logits[number], expected) <= 1e-5
        if dropper.prefill is None:  # nothing but a prefill strategy may drop a [CLS]
            first = int(ledger.vision.nonzero()[0])
            assert first in ledger.alive[5]


class PixelLists(VisionStrategy):
    """Drops behind the projector, the third place a vision strategy may act."""

    places = ("projected",)

    def reduce(self, view) -> Reduction:
        assert view.block == "projected"
        keep = torch.randperm(len(view.hidden), generator=view.generator(3))[:7]
        return Reduction(keep.sort().values)


def test_dropping_behind_the_projector():
    model = tiny_llava()
    inputs = batch(prompt(model), prompt(model, images=2, seed=3))
    dropper = TokenDropper(vision=PixelLists())
    with dropper.attach(model) as run:
        tokens, logits = greedy(model, inputs)
        again = [image.cells.tolist() for image in run.images]
        greedy(model, inputs)
        assert [image.cells.tolist() for image in run.images] == again
    assert len({tuple(cells) for cells in again}) == 3  # images draw for themselves
    assert [ledger.vision_per_layer()[0] for ledger in run.ledgers] == [7, 14]
    for number in range(2):
        expected = masked_logits(model, run, inputs, tokens, number)
        assert relative_error(logits[number], expected) <= 1e-5


class SomeCells(VisionStrategy):
    """Keeps those of five cells that every crop shows behind the encoder, and mixes four in one."""

    places = ("features",)

    def reduce(self, view) -> Reduction:
        index = {cell: number for number, cell in enumerate(view.cells.tolist())}
        keep = [index[cell] for cell in (0, 9, 30, 14, 35) if cell in index]
        mix = torch.eye(len(index))[keep]
        mix[keep.index(index[9])] = torch.eye(len(index))[[index[c] for c in (9, 10, 15, 16)]].mean(
            0
        )
        return Reduction(torch.tensor(keep), mix, torch.ones(len(keep)))


def test_packing_that_moves_cuts_and_separates_cells():
    """22 x 40 pixels on 24 x 48: five cells a side of each crop stay, a newline ends a row."""
    family = FAMILIES["llava_next"]
    model = family.model()
    inputs = family.inputs(model, (2, Image(40, 22), 3))
    (images,) = adapter_for(model).visual_inputs(inputs).values()
    cells = images[0].cells
    assert len(images[0].grids) == 3 and cells[:36].tolist() == list(range(36))
    assert images[0].crops == (2, 1)
    packed = cells[36:].view(-1, images[0].cells[36:].eq(OFF_GRID).nonzero()[0] + 1)
    assert (packed[:, -1] == OFF_GRID).all()
    shown = set(packed[:, :-1].flatten().tolist())
    assert len(shown) < 72  # the packing cut padding away
    with TokenDropper(vision=SomeCells()).attach(model) as run:
        greedy(model, inputs)
    ledger, wanted = run.ledgers[0], {0, 9, 30, 14, 35}
    assert ledger.grids == [(6, 6)] * 3 and ledger.mosaics == [(1, 2, 1)]
    for image, source in enumerate(ledger.sources):
        first = 36 * image
        left = {cell for cell in wanted if image == 0 or first + cell in shown}
        assert set(source.cells.tolist()) == left
        assert source.mix is not None and source.mix[source.cells == 9, 9] == 0.25
        slots = ledger.vision.nonzero().flatten()[torch.isin(cells, source.cells + first)]
        assert sorted(source.slots.tolist()) == slots.tolist()
    entered = ledger.vision_per_layer()[0]
    assert entered == sum(len(s.cells) for s in ledger.sources) + int((cells == OFF_GRID).sum())


def test_crops_that_do_not_tile_a_picture_are_refused():
    cells, pixels = torch.arange(16), [torch.zeros(1)] * 4
    VisualInput([(2, 2)] * 4, cells, pixels, crops=(3, 1))
    with pytest.raises(ValueError, match=r"crops must be \(rows, columns\) of 3 crops, got"):
        VisualInput([(2, 2)] * 4, cells, pixels, crops=(2, 2))


@pytest.mark.parametrize(
    ("family", "change", "message"),
    [
        ("qwen2_5_vl", {"mm_token_type_ids": None}, "mm_token_type_ids must be given with images"),
        ("qwen2_5_vl", {"image_grid_thw": None}, "image_grid_thw must describe the 96 rows"),
        ("llava_next", {"image_sizes": None}, "image_sizes must have one row per image: 1, got"),
    ],
)
def test_inputs_that_are_missing_are_refused(family, change, message):
    made = FAMILIES[family]
    model = made.model()
    inputs = {**made.inputs(model, made.prompts[0]), **change}
    with (
        TokenDropper().attach(model),
        pytest.raises(ValueError, match=message),
    ):
        model.generate(**{k: v for k, v in inputs.items() if v is not None}, max_new_tokens=1)


def test_an_unknown_encoder_in_a_known_class_is_refused():
    small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
             "num_attention_heads": 4}  # fmt: skip
    config = LlavaConfig(vision_config=ViTConfig(**small, image_size=32, patch_size=8))
    config.text_config.update({**small, "vocab_size": 97, "num_key_value_heads": 4})
    model = LlavaForConditionalGeneration(config)
    with pytest.raises(ValueError, match=r"the vision encoder must be one of .*, got vit"):
        TokenDropper().attach(model).__enter__()


def test_slots_and_images_that_do_not_match_are_refused():
    model = tiny_llava()
    inputs = prompt(model, images=2)
    fewer = {**inputs, "pixel_values": inputs["pixel_values"][:1]}
    more = {**inputs, "pixel_values": torch.cat([inputs["pixel_values"]] * 2)}
    short = {**inputs, "input_ids": inputs["input_ids"].clone()}
    short["input_ids"][0, 3] = 9
    for given, message in (
        (fewer, "prompt 0 has 72 vision slots, but its images fill 36"),
        (more, "2 of 4 images have no vision slots in the prompts"),
        (short, "prompt 0 has 35 vision slots for an image that fills 36"),
    ):
        with TokenDropper().attach(model), pytest.raises(ValueError, match=message):
            model.generate(**given, max_new_tokens=1)
