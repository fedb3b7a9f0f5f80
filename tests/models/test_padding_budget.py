"""Cells in the padding of a crop are not selected, so that a budget is what a prompt executes."""

import pytest
import torch
from families import FAMILIES, Image
from family_droppers import FITTING
from models import greedy

from mustdrop import TokenDropper
from mustdrop.budget import Budget
from mustdrop.key_tokens.cls_attention import ClsAttention
from mustdrop.ledger import OFF_GRID
from mustdrop.masked import masked_logits, relative_error
from mustdrop.vision.cls_topk import ClsTopK
from mustdrop.vision.known_patches import KnownPatches
from mustdrop.vision.local_merge import LocalMerge
from mustdrop.vision.prumerge import PruMerge, PruMergePlus
from mustdrop.vision.visionzip import VisionZip
from mustdrop.vision.vispruner import VisPruner

NEXT = FAMILIES["llava_next"]
# all but the first leave padding in their crops
SHAPES = [(48, 48), (40, 22), (17, 48), (48, 31), (24, 9), (71, 20), (50, 10), (30, 41)]
CLOSED = {
    "cls_topk": lambda budget: ClsTopK(budget, block=-2),
    "vispruner": lambda budget: VisPruner(budget),
    "visionzip": lambda budget: VisionZip(budget, budget),
    "prumerge": lambda budget: PruMerge(budget, neighbours=5),
    "prumerge_plus": lambda budget: PruMergePlus(budget, neighbours=5),
}


@pytest.fixture(scope="module")
def model():
    return NEXT.model()


def prefill(model, dropper, shape):
    """Run of a prompt with one image, and its number of vision tokens that show a cell."""
    inputs = NEXT.inputs(model, (3, Image(*shape), 5))
    with torch.inference_mode(), dropper.attach(model) as run:
        model(**inputs)
    (ledger,) = run.ledgers
    return run, int((ledger.cells != OFF_GRID).sum())


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", CLOSED)
def test_a_share_and_a_count_are_executed_on_pictures_of_any_shape(model, name, shape):
    for budget in (Budget(share=0.5), Budget(tokens=41)):
        run, cells = prefill(model, TokenDropper(vision=CLOSED[name](budget)), shape)
        (ledger,) = run.ledgers
        executed = ledger.vision_per_layer()[0] - int((ledger.cells == OFF_GRID).sum())
        target = min(budget.target(cells), cells)
        assert abs(executed - target) <= max(0.01 * target, 0.5), (budget, executed, target)


def test_key_tokens_are_a_share_of_the_tokens_that_enter(model):
    dropper = TokenDropper(key_tokens=ClsAttention("ratio", ratio=0.25))
    for shape in SHAPES:
        run, _ = prefill(model, dropper, shape)
        for image in run.images:
            shown = int((image.image.slots != OFF_GRID).sum())
            assert int(image.protected.sum()) == -(-shown // 4)
        assert int(run.ledgers[0].protected.sum()) == sum(
            int(image.protected.sum()) for image in run.images
        )


def test_no_padding_is_seen_after_an_earlier_merge(model):
    dropper = FITTING["mustdrop"]
    assert isinstance(dropper.vision, LocalMerge)
    for shape in SHAPES[1:4]:
        run, _ = prefill(model, dropper, shape)
        assert any((image.image.slots == OFF_GRID).any() for image in run.images)
        for image in run.images:
            assert (image.image.slots[image.cells] != OFF_GRID).all()


@pytest.mark.parametrize("name", CLOSED)
def test_dropping_is_masking_on_pictures_with_padding(model, name):
    dropper = TokenDropper(vision=CLOSED[name](Budget(share=0.4)))
    inputs = NEXT.inputs(model, (3, Image(17, 48), 5), (2, Image(40, 22), 2, Image(24, 9), 4))
    with dropper.attach(model) as run:
        tokens, logits = greedy(model, inputs, 3)
    for number in range(2):
        expected = masked_logits(model, run, inputs, tokens, number)
        assert relative_error(logits[number], expected) <= 1e-5


def test_keeping_everything_changes_no_bit(model):
    """A strategy that keeps all tokens leaves the padding's features to the model."""
    inputs = NEXT.inputs(model, (3, Image(17, 48), 5))
    with torch.inference_mode():
        plain = model(**inputs).logits
        with TokenDropper(vision=ClsTopK(99, block=-2)).attach(model) as run:
            assert torch.equal(model(**inputs).logits, plain)
    assert not any(image.steps for image in run.images)
    assert KnownPatches.places == ("features",)  # so the oracles follow the same rule
