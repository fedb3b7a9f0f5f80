"""The engine waits for the device rarely, however many prompts, images, blocks and layers."""

import pytest
from families import FAMILIES, Video
from family_droppers import FEW, FITTING
from watch import watched

from mustdrop.models import adapter_for
from mustdrop.vision.local_merge import LocalMerge
from mustdrop.vision.prumerge import PruMerge, PruMergePlus

NAMES = [pytest.param(name, marks=() if name in FEW else pytest.mark.slow) for name in FITTING]


def counts_tokens(vision) -> bool:
    """Whether the number of tokens that a strategy keeps of an image depends on the image."""
    if isinstance(vision, PruMerge | PruMergePlus):
        return vision.keep is None
    return isinstance(vision, LocalMerge)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_prefill_waits_at_most_once_per_drop_and_prompt(family, name):
    """The model's own waits are those that it has without a dropper.

    A strategy that counts the tokens of an image waits for each image. Blocks whose attention stays
    in segments need the number of segments that are left: one wait for each kind of block after a
    drop between blocks, in each call of the encoder.
    """
    made, dropper = FAMILIES[family], FITTING[name]
    model = made.model()
    (encoder,) = adapter_for(model).encoders
    places = dropper.vision.places if dropper.vision else ()
    drops = len(places) + (len(dropper.prefill.layers) if dropper.prefill else 0)
    drops += bool(dropper.decode)
    drops += hasattr(dropper.prefill, "seed")  # a draw reads the prompt's bytes
    between = sum(isinstance(place, int) for place in places)
    kinds = int(encoder.packed) + (encoder.window is not None)
    for prompts in (made.prompts[:1], made.prompts):
        inputs = made.inputs(model, *prompts)
        calls = 1 + any(isinstance(part, Video) for parts in prompts for part in parts)
        most = drops * len(prompts) + between * kinds * calls
        if counts_tokens(dropper.vision) or name == "average_pool":
            shown = adapter_for(model).visual_inputs(inputs).values()
            most += sum(len(visual.grids) for group in shown for visual in group)
        waits = watched(model, inputs, dropper).waits - watched(model, inputs, None).waits
        assert waits.total() <= most, waits
