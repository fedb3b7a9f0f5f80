"""Measurements on a CUDA device: waits, marks, memory and kernels."""

import pytest
import torch
from droppers import DROPPERS
from models import prompt, tiny_llava

from experiments.gpu.waits import Waits
from mustdrop.profiling.device import Device
from mustdrop.profiling.measure import Arm, BatchBench
from mustdrop.profiling.parts import PARTS
from mustdrop.profiling.roofline import measured_rates

CUDA = Device("cuda")


def test_a_drop_waits_at_most_once_per_batch():
    build, *counts = Waits(CUDA, "small").steps()
    build.run()
    rows = [count.run() for count in counts]
    assert all(row["passed"] for row in rows), [row for row in rows if not row["passed"]]


@pytest.mark.parametrize("name", [None, "mustdrop", "fastv", "visionzip", "sparsevlm", "random"])
def test_the_parts_sum_to_the_first_token_and_its_memory_is_measured(name):
    model = tiny_llava(dtype=torch.bfloat16).cuda()
    inputs = {key: value.cuda() for key, value in prompt(model, flat=0.5).items()}
    bench = BatchBench(CUDA, model, inputs)
    dropper = None if name is None else DROPPERS[name]
    arm, reference = Arm("arm", dropper), Arm("reference", dropper, reference=True)
    facts = bench.facts(arm)
    assert facts["attention"] and bench.facts(reference)["flops"] > 0
    for measured in (arm, reference):
        numbers = bench.prefill(measured)
        parts = sum(numbers.get(f"part_{part}_ms", 0.0) for part in PARTS)
        assert parts == pytest.approx(numbers["ttft_ms"], rel=1e-3)
        assert numbers["peak_bytes"] > numbers["extra_bytes"] > 0
        assert bench.answer(measured, 4)["tpot_4_ms"] > 0


def test_the_device_describes_itself():
    assert CUDA.describe()["memory_bytes"] == CUDA.total_memory() > 2**30
    assert measured_rates(CUDA, torch.bfloat16)["flops_per_second"] > 1e12
    CUDA.clocks()
