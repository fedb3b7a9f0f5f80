"""What the adapter interface must carry: frames that keep [CLS], packing that moves patches."""

import pytest
import torch
from droppers import DROPPERS
from models import batch, greedy, prompt, tiny_llava

from mustdrop import Reduction, TokenDropper, VisionStrategy
from mustdrop.engine.image import EncodedImage
from mustdrop.engine.prompts import Arrival, arrange, entering
from mustdrop.masked import masked_logits, relative_error
from mustdrop.models import OFF_GRID, adapter_for
from mustdrop.models.llava import LlavaAdapter


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
    assert adapter.facts.grid == (6, 6) and adapter.patches == 36
    assert adapter.facts.has_cls and not adapter.keeps_cls
    assert adapter.facts.feature_block == 2  # hidden_states[-2] of 4 blocks: the output of block 2
    assert adapter.tags(2).tolist() == list(range(72))
    with pytest.raises(ValueError, match="37 vision tokens, no multiple of 36"):
        adapter.images_per_prompt([36, 37])


@pytest.mark.parametrize("name", ["fastv", "cls_topk", "local_merge", "mustdrop", "uniform_grid"])
def test_frames_that_keep_their_cls(keeps_cls, name):
    model = keeps_cls
    assert adapter_for(model).tags(1)[0] == OFF_GRID
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


def test_packing_that_moves_cuts_and_separates_patches():
    """A packed prompt as LLaVA-NeXT makes it: tiles reordered, rows cut away, newlines between."""
    model = tiny_llava(grid=6)
    adapter = LlavaAdapter(model)
    rows = torch.arange(36, 72).view(6, 6)[1:5]  # first and last row cut away
    newline = torch.full((4, 1), OFF_GRID)
    packed = torch.cat([torch.arange(36), torch.cat([rows, newline], 1).flatten()])
    slots = torch.full((1, len(packed)), model.config.image_token_id)
    ids = torch.cat([torch.full((1, 2), 7), slots, torch.full((1, 3), 8)], 1)
    mixed = torch.eye(36)[[0, 9, 30, 14, 35]]
    images = [
        EncodedImage(torch.arange(36), torch.ones(36), torch.zeros(36, dtype=torch.bool)),
        EncodedImage(
            torch.tensor([0, 9, 30, 14, 35]),
            torch.tensor([1.0, 4.0, 1.0, 9.0, 1.0]),
            torch.tensor([True, True, False, False, False]),
            Reduction(torch.tensor([0, 9, 30, 14, 35]), mixed),
        ),
    ]

    class Packed(LlavaAdapter.__mro__[1]):
        base = language_model = encoders = projector = vision_token_ids = None
        facts, patches = adapter.facts, 36

        def blocks(self, encoder):
            return []

        def vision_mask(self, input_ids):
            return adapter.vision_mask(input_ids)

        def images_per_prompt(self, counts):
            return [2 for _ in counts]

        def tags(self, images):
            return packed

    arrival = Arrival.of(Packed(model), ids, None)
    prompts = arrange(Packed(model), arrival, None)
    reductions = entering(Packed(model), prompts, images, [packed])
    assert reductions is not None
    tags = packed[reductions[0].keep]
    # cells 9 and 14 of the second image are left; 0, 30 and 35 had been cut away; newlines stay
    second = [int(tag) for tag in tags[36:]]
    assert sorted(tag for tag in second if tag != OFF_GRID) == [36 + 9, 36 + 14]
    assert second.count(OFF_GRID) == 4
    assert second == [45, OFF_GRID, 50, OFF_GRID, OFF_GRID, OFF_GRID]
    ledger = prompts[0].ledger
    assert ledger.protected.nonzero().flatten().tolist() == [2 + 36 + 3]
    assert ledger.sources[1].cells.tolist() == [9, 14]
    assert reductions[0].sizes[36:].tolist() == [4, 1, 9, 1, 1, 1]
