"""Parity with the authors' arrays of LLaVA-NeXT, through the adapter of transformers' LLaVA-NeXT.

MustDrop's three crops run in a whole model with the authors' weights, once with their flat packing
of the crops, where every array is compared, and once with transformers' own packing. The latter
has another order of crops and newlines, so there the arrays of the encoder are compared, and which
slot gets which of the authors' tokens. Their logits cannot be equal in it.
"""

from dataclasses import replace

import golden_next
import numpy as np
import pytest
import torch
from golden_mustdrop import Replay
from golden_next import authors_cells, load_next_model, next_inputs, spatial_slots
from golden_runners import GOLDEN, HERE, INPUTS, load
from golden_visionzip import restored_slots
from test_parity import same

from mustdrop.models.llava_next import LlavaNextAdapter

DATA = load(GOLDEN / "mustdrop" / "case6_anyres3crops.npz")


@pytest.fixture(scope="module")
def model():
    return load_next_model(GOLDEN / "mustdrop")


def test_with_the_authors_packing_every_array_is_theirs(model, monkeypatch):
    monkeypatch.setattr(model.model, "pack_image_features", golden_next.flat_packing)
    replay = Replay(model, DATA, next_inputs(DATA, slots=3 * 576))
    compared = 0
    for name, theirs in DATA.items():
        if name not in INPUTS:
            same(name, replay.ours(name), theirs)
            compared += 1
    assert compared == len(DATA) - len(INPUTS) and "logits" in DATA


@pytest.fixture(scope="module")
def spatial(model):
    return Replay(model, DATA, next_inputs(DATA, slots=len(spatial_slots())))


def test_with_the_models_packing_the_encoders_arrays_are_theirs(spatial):
    names = [name for name in DATA if name.startswith(golden_next.ENCODER)]
    assert len(names) >= 13
    for name in names:
        same(name, spatial.ours(name), DATA[name])


def test_with_the_models_packing_each_token_of_theirs_is_in_the_slot_of_its_cell(spatial):
    cells, slots = authors_cells(DATA), spatial_slots()
    index = {
        (crop, int(cell)): (crop, token)
        for crop, row in enumerate(cells)
        for token, cell in enumerate(row)
    }
    start = int(DATA["v_token_start"])
    expected = [slot is None or slot in index for slot in slots]
    entered = spatial.ledger.alive[0]
    entered = entered[spatial.ledger.vision[entered]] - start
    assert torch.equal(entered, torch.tensor(expected).nonzero().flatten())
    assert len(entered) == 3 * 472 + 24  # the authors' tokens, and a newline per row
    keys = {(crop, token) for crop, row in enumerate(DATA["key_index_topk"]) for token in row}
    for position, is_key in enumerate(spatial.ledger.protected[start : start + len(slots)]):
        token = index.get(slots[position]) if slots[position] is not None else None
        assert bool(is_key) == (token in keys)
    newline = torch.full((64,), golden_next.NEWLINE)
    theirs = [
        newline
        if slots[slot] is None
        else torch.from_numpy(DATA["image_features"])[index[slots[slot]]]
        for slot in entered.tolist()
    ]
    ours = spatial.caught["entering"][0, start : start + len(theirs)]
    same("features", ours, torch.stack(theirs).numpy())


def test_a_map_with_the_crops_in_another_order_fails_parity(model, monkeypatch):
    right = LlavaNextAdapter.visual_inputs

    def wrong(adapter, given):
        ((token, (image,)),) = right(adapter, given).items()
        return {token: [replace(image, cells=image.cells.roll(576))]}

    monkeypatch.setattr(model.model, "pack_image_features", golden_next.flat_packing)
    monkeypatch.setattr(LlavaNextAdapter, "visual_inputs", wrong)
    replay = Replay(model, DATA, next_inputs(DATA, slots=3 * 576))
    same("lsm_assign", replay.ours("lsm_assign"), DATA["lsm_assign"])  # the encoder does not see it
    for name in ("L2_attn_sum", "L2_vis_keep", "logits"):
        with pytest.raises(AssertionError):
            same(name, replay.ours(name), DATA[name])


def test_visionzips_order_of_tiles_is_that_of_the_adapters_slots():
    """The authors' 124 dominant tokens; their [CLS] and contextual tokens come behind, without a
    place in the picture, and transformers' packing has no slot for them."""
    data = load(HERE / "visionzip" / "next_restore_2x2.npz")
    tiles, kept = data["keep_idx"].shape
    dominant = tiles * (kept - 1)
    slots = restored_slots(torch.from_numpy(data["keep_idx"]), rows=2, columns=2)
    features = torch.from_numpy(data["feat"])[:, 1:kept].flatten(0, 1)
    assert np.array_equal(features[slots.argsort()].numpy(), data["out"][:dominant])
    assert not np.array_equal(features.numpy(), data["out"][:dominant])
