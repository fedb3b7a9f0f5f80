"""What only a CUDA device can show; skipped elsewhere. Flash attention has not run anywhere yet."""

import pytest
import torch
from droppers import DROPPERS
from models import batch, greedy, prompt, tiny_llava

from mustdrop.masked import masked_logits, relative_error

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def on_gpu(inputs: dict) -> dict:
    return {name: value.cuda() for name, value in inputs.items()}


@pytest.mark.parametrize("name", DROPPERS)
def test_dropping_equals_masking_on_the_gpu(name):
    model = tiny_llava().cuda()
    inputs = on_gpu(batch(prompt(model, flat=0.5), prompt(model, images=2, seed=3)))
    with DROPPERS[name].attach(model) as run:
        tokens, logits = greedy(model, inputs)
    for number in range(2):
        expected = masked_logits(model, run, inputs, tokens, number)
        assert relative_error(logits[number], expected) <= 1e-5


@pytest.mark.parametrize("name", ["fastv", "all_stages", "local_merge"])
def test_flash_attention_agrees_with_sdpa(name):
    pytest.importorskip("flash_attn")
    found = {}
    for attention in ("sdpa", "flash_attention_2"):
        model = tiny_llava(attention, hidden=128, dtype=torch.bfloat16).cuda()
        inputs = on_gpu(batch(prompt(model, flat=0.5), prompt(model, images=2, seed=3)))
        with DROPPERS[name].attach(model):
            found[attention] = greedy(model, inputs)[1].float()
    assert relative_error(found["flash_attention_2"], found["sdpa"]) <= 0.05
