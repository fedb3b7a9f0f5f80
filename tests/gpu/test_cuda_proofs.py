"""Dropping equals masking on a CUDA device, for every dropper, family and attention."""

import pytest
import torch
from droppers import DROPPERS
from families import FAMILIES
from family_droppers import FITTING, FITTING_OF
from models import batch, greedy, prompt, tiny_llava

from experiments.gpu.equality import ATTENTION, Equality
from experiments.gpu.runner import NotHere
from mustdrop.masked import masked_logits, relative_error
from mustdrop.profiling.device import Device, exact_float32

BAR = 1e-5


@pytest.fixture(autouse=True)
def exact():
    """Products in float32 without TF32, for these tests alone."""
    convolution, matmul = torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()
    exact_float32()
    yield
    torch.backends.cudnn.allow_tf32 = convolution
    torch.set_float32_matmul_precision(matmul)


def on_gpu(inputs: dict) -> dict:
    return {name: value.cuda() for name, value in inputs.items()}


def require_equality(model, inputs, dropper):
    with dropper.attach(model) as run:
        tokens, logits = greedy(model, inputs, 2)
    for number in range(len(logits)):
        expected = masked_logits(model, run, inputs, tokens, number)
        assert relative_error(logits[number], expected) <= BAR


@pytest.mark.parametrize("name", DROPPERS)
def test_dropping_equals_masking(name):
    model = tiny_llava().cuda()
    inputs = on_gpu(batch(prompt(model, flat=0.5), prompt(model, images=2, seed=3)))
    require_equality(model, inputs, DROPPERS[name])


@pytest.mark.parametrize("name", FITTING)
@pytest.mark.parametrize("family", FAMILIES)
def test_dropping_equals_masking_for_every_family(family, name):
    made = FAMILIES[family]
    model = made.model()
    inputs = on_gpu(made.inputs(model, *made.prompts))
    require_equality(model.cuda(), inputs, FITTING_OF[family][name])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("attention", ATTENTION)
def test_every_attention_stays_within_its_bar(attention, dtype):
    if attention.startswith("flash") and dtype == torch.float32:
        pytest.skip("flash attention has no float32")
    build, *checks = Equality(Device("cuda"), "small", dtype, attention, 4).steps()
    try:
        build.run()
    except NotHere as reason:
        pytest.skip(str(reason))
    rows = [check.run() for check in checks]
    assert all(row["passed"] for row in rows), [row for row in rows if not row["passed"]]
    kernel = {"sdpa, flash kernel": "flash", "sdpa, efficient kernel": "efficient"}.get(attention)
    if kernel is not None and dtype == torch.bfloat16:
        assert all(kernel in row["kernels"] for row in rows if row["batch"] == "one prompt")
