"""No tensor of ours is left on the host: everything runs on a device that refuses to mix."""

import pytest
from pretend_process import alone

EVERY_DROPPER = """
from droppers import DROPPERS
from models import batch, greedy, prompt, tiny_llava
from mustdrop.masked import masked_logits, relative_error

model = tiny_llava()
inputs = batch(prompt(model, flat=0.5), prompt(model, images=2, seed=3))

def dropped(inputs):
    outputs = {}
    for name, dropper in DROPPERS.items():
        with dropper.attach(model) as run:
            outputs[name] = (*greedy(model, inputs, 2), run)
    return outputs

expected, errors = dropped(inputs), {}
moved(model)
inputs = moved(inputs)
with PretendDevice():
    for name, (tokens, logits, run) in dropped(inputs).items():
        errors[name] = [relative_error(logits.inner, expected[name][1])]
        for number in range(2):
            masked = masked_logits(model, run, inputs, tokens, number)
            errors[name].append(relative_error(logits[number], masked))
print(json.dumps(errors))
"""
EVERY_FAMILY = """
from families import FAMILIES
from family_droppers import FITTING_OF
from models import greedy
from mustdrop.masked import masked_logits, relative_error

NAMES = ("fastv", "divprune", "average_pool", "tome_plain", "visionzip", "all_stages", "random")

def dropped(family, model, inputs):
    outputs = {}
    for name in NAMES:
        with FITTING_OF[family][name].attach(model) as run:
            outputs[name] = (*greedy(model, inputs, 2), run)
    return outputs

errors = {}
for family, made in FAMILIES.items():
    model = made.model()
    inputs = made.inputs(model, *made.prompts)
    expected = dropped(family, model, inputs)
    moved(model)
    inputs = moved(inputs)
    with PretendDevice():
        for name, (tokens, logits, run) in dropped(family, model, inputs).items():
            key = f"{family} {name}"
            errors[key] = [relative_error(logits.inner, expected[name][1])]
            for number in range(3):
                masked = masked_logits(model, run, inputs, tokens, number)
                errors[key].append(relative_error(logits[number], masked))
print(json.dumps(errors))
"""
MIXED = """
messages = []
with PretendDevice() as device:
    there, here = torch.ones(3, device="pretend"), torch.ones(3)
    for mix in (lambda: there + here, lambda: torch.cat([here, there]), lambda: here @ there):
        try:
            mix()
        except RuntimeError as error:
            messages.append(str(error).split(":")[0])
    assert not device.waits
    assert (there + 1).cpu().tolist() == [2.0] * 3 and bool(there.sum() == 3)
    assert torch.tensor([1], device="pretend").device.type == "pretend"
print(json.dumps([messages, sum(device.waits.values())]))
"""


@pytest.mark.slow
def test_a_pretend_device_refuses_to_mix_and_counts_waits():
    messages, waits = alone(MIXED)
    assert messages == ["Expected all tensors to be on the same device"] * 3
    assert waits == 3


@pytest.mark.slow
@pytest.mark.parametrize("code", [EVERY_DROPPER, EVERY_FAMILY], ids=["llava", "families"])
def test_every_dropper_and_the_masked_model_run_on_one_device(code):
    for name, errors in alone(code).items():
        assert max(errors) <= 1e-5, (name, errors)
