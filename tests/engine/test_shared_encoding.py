"""Calls that drop nothing in the encoder share one run of it, and answer as without sharing."""

import pytest
import torch
from families import FAMILIES

from mustdrop import TokenDropper
from mustdrop.engine.shared_encoding import ENCODING, SharedEncoding
from mustdrop.models import adapter_for
from mustdrop.prefill.fastv import FastV
from mustdrop.prefill.random import Random
from mustdrop.vision.divprune import DivPrune

DROPPERS = (
    TokenDropper(),
    TokenDropper(prefill=FastV(keep=4, layer=1)),
    TokenDropper(prefill=Random(keep=5, seed=1, layer=0)),
)


@pytest.fixture(scope="module", params=sorted(FAMILIES))
def case(request):
    family = FAMILIES[request.param]
    model = family.model()
    return model, family.inputs(model, *family.prompts[:2])


@pytest.fixture
def encoded(case):
    """A list with an entry for each call of the encoder."""
    calls = []
    handles = [
        encoder.module.register_forward_hook(lambda *_: calls.append(1))
        for encoder in adapter_for(case[0]).encoders
    ]
    yield calls
    for handle in handles:
        handle.remove()


def answered(model, inputs, dropper):
    with torch.inference_mode(), dropper.attach(model):
        made = model.generate(
            **inputs, max_new_tokens=3, do_sample=False, return_dict_in_generate=True,
            output_logits=True,
        )  # fmt: skip
    return torch.stack(made.logits)


def test_the_encoder_runs_once_and_no_number_changes(case, encoded):
    model, inputs = case
    separate = [answered(model, inputs, dropper) for dropper in DROPPERS]
    whole, left = divmod(len(encoded), len(DROPPERS))
    assert whole >= 1 and not left  # a call for images, and one for videos
    encoded.clear()
    encoding = SharedEncoding(adapter_for(model))
    for dropper, expected in zip(DROPPERS, separate, strict=True):
        with encoding.attach(dropper):
            assert torch.equal(answered(model, inputs, dropper), expected)
    assert len(encoded) == whole
    assert not {*ENCODING} & model.model.__dict__.keys()  # the model as it was


def test_other_images_and_droppers_of_the_encoder_share_nothing(case, encoded):
    model, inputs = case
    encoding = SharedEncoding(adapter_for(model))
    changed = {name: -value for name, value in inputs.items() if name.startswith("pixel")}
    copied = {**inputs, **changed}
    dropping = TokenDropper(vision=DivPrune(keep=4))
    for given, dropper in ((inputs, DROPPERS[1]), (copied, DROPPERS[1]), (copied, dropping)):
        encoded.clear()
        expected = answered(model, given, dropper)
        whole = len(encoded)
        with encoding.attach(dropper):
            assert torch.equal(answered(model, given, dropper), expected)
        assert len(encoded) == 2 * whole
    encoded.clear()
    encoding.forget()
    with encoding.attach(DROPPERS[0]):
        answered(model, copied, DROPPERS[0])
    assert len(encoded) == whole


def test_an_error_leaves_the_model_as_it_was(case):
    model, _ = case
    with pytest.raises(KeyError), SharedEncoding(adapter_for(model)).attach(TokenDropper()):
        raise KeyError
    assert not {*ENCODING} & model.model.__dict__.keys()
