"""What a profile measures is true: parts sum to the whole, counts are those of the ledger."""

import subprocess
import sys
import time
from dataclasses import dataclass, replace
from functools import partial

import pytest
import torch
from droppers import DROPPERS
from families import FAMILIES
from family_droppers import FITTING
from models import batch, prompt, tiny_llava

from mustdrop import TokenDropper, cost
from mustdrop.decode.output_aware import OutputAware
from mustdrop.key_tokens.cls_attention import ClsAttention
from mustdrop.models import adapter_for
from mustdrop.models.shapes import decoder_shape, encoder_shape
from mustdrop.prefill.fastv import FastV
from mustdrop.profiling.counting import attention_kernels, counted_flops
from mustdrop.profiling.device import Device
from mustdrop.profiling.measure import Arm, BatchBench
from mustdrop.profiling.parts import PARTS
from mustdrop.profiling.reference import Reference, recorded
from mustdrop.profiling.roofline import measured_rates
from mustdrop.vision.cls_topk import ClsTopK

CPU = Device("cpu")
WAIT = 0.05


@pytest.fixture(scope="module")
def model():
    return tiny_llava()


@pytest.fixture(scope="module")
def inputs(model):
    return batch(prompt(model, flat=0.5), prompt(model, seed=1, flat=0.5))


@pytest.mark.parametrize("name", [None, "mustdrop", "tome", "fastv", "visionzip", "random"])
def test_the_parts_sum_to_the_time_of_the_first_token(model, inputs, name):
    bench = BatchBench(CPU, model, inputs)
    numbers = bench.prefill(Arm("arm", None if name is None else DROPPERS[name]))
    parts = {part: numbers[f"part_{part}_ms"] for part in PARTS}
    assert sum(parts.values()) == pytest.approx(numbers["ttft_ms"], rel=1e-6)
    assert min(parts.values()) >= 0
    decisions = {part for part in ("vision", "key_tokens", "prefill", "cache") if parts[part] > 0.1}
    deciding = {None: set(), "fastv": {"prefill"}, "tome": {"vision"}, "visionzip": {"vision"}}
    assert decisions >= deciding.get(name, set())
    assert not any(module._forward_pre_hooks for module in adapter_for(model).layers)


@dataclass(frozen=True)
class WaitingFastV(FastV):
    def score(self, view):
        time.sleep(WAIT)
        return super().score(view)


@dataclass(frozen=True)
class WaitingTopK(ClsTopK):
    def reduce(self, view):
        time.sleep(WAIT)
        return super().reduce(view)


@dataclass(frozen=True)
class WaitingKeys(ClsAttention):
    def protect(self, view):
        time.sleep(WAIT)
        return super().protect(view)


@dataclass(frozen=True)
class WaitingCache(OutputAware):
    def keep(self, view):
        time.sleep(WAIT / 6)
        return super().keep(view)


@pytest.mark.parametrize(
    ("part", "dropper"),
    [
        ("prefill", TokenDropper(prefill=WaitingFastV(keep=10, layer=1))),
        ("vision", TokenDropper(vision=WaitingTopK(keep=12))),
        ("key_tokens", TokenDropper(key_tokens=WaitingKeys("ratio", ratio=0.1))),
        ("cache", TokenDropper(prefill=FastV(keep=9, layer=1), decode=WaitingCache(0))),
    ],
)
def test_a_method_that_waits_is_seen_in_its_part_and_in_the_whole(model, part, dropper):
    numbers = BatchBench(CPU, model, prompt(model)).prefill(Arm("arm", dropper))
    assert numbers[f"part_{part}_ms"] >= 1e3 * WAIT
    rest = sum(numbers[f"part_{other}_ms"] for other in PARTS if other != part)
    assert rest < numbers["ttft_ms"] - 1e3 * WAIT + 1


@pytest.mark.parametrize("family", ["llava_next", "qwen2_5_vl"])
@pytest.mark.parametrize("name", [None, "mustdrop"])
def test_operations_and_cache_equal_the_costs_of_the_ledger(family, name):
    made = FAMILIES[family]
    model = made.model("sdpa")
    dropper = None if name is None else FITTING[name]
    if name is not None and family == "llava_next":  # crops of unlike lengths would be padded
        dropper = replace(dropper, vision=replace(dropper.vision, crops="fewest"))
    bench = BatchBench(CPU, model, made.inputs(model, made.prompts[0]))
    facts = bench.facts(Arm("arm", dropper))
    assert facts["flops"] == facts["flops_formula"]
    assert facts["kv_bytes"] == facts["kv_formula"]
    if name is not None:
        assert facts["kv_bytes"] < bench.facts(Arm("arm", None))["kv_bytes"]


@pytest.mark.parametrize("family", ["llava_next", "qwen2_5_vl", "qwen3_vl"])
@pytest.mark.parametrize("name", ["fastv", "mustdrop"])
def test_a_reference_computes_the_work_of_the_method_without_its_decisions(family, name):
    made, dropper = FAMILIES[family], FITTING[name]
    if name == "mustdrop" and family == "llava_next":
        dropper = replace(dropper, vision=replace(dropper.vision, crops="fewest"))
    model = made.model("sdpa")
    inputs = made.inputs(model, made.prompts[0])
    work, run = recorded(model, inputs, dropper)
    adapter, (ledger,) = adapter_for(model), run.ledgers
    decoder, encoder = decoder_shape(adapter), encoder_shape(adapter)
    macs = cost.prefill_macs(ledger, decoder) - cost.scoring_macs(ledger, decoder)
    macs += cost.encoder_macs(ledger, encoder) - ledger.encoder_decision_macs
    reference = Reference(model, inputs, work, CPU)
    assert counted_flops(reference.prefill) == cost.flops(macs)
    assert [layer.get_seq_length() for layer in reference.prefill()[1].layers] == [
        len(ledger.alive[layer]) for layer in range(ledger.depth)
    ]


def test_an_answer_has_its_length_and_its_steps_lie_within_it(model, inputs):
    bench = BatchBench(CPU, model, inputs)
    arms = [Arm("method", DROPPERS["mustdrop"]), Arm("reference", DROPPERS["mustdrop"], True)]
    for arm in arms:
        bench.facts(arm)
        numbers = bench.answer(arm, 4)
        assert 0 < 3 * numbers["tpot_4_ms"] < numbers["e2e_4_ms"]
        assert "tpot_1_ms" not in bench.answer(arm, 1)


def test_the_attention_kernel_that_ran_is_named():
    for attention, kernels in (("sdpa", {"flash (CPU)": 10}), ("eager", {})):
        model = tiny_llava(attention)
        assert attention_kernels(partial(model, **prompt(model))) == kernels
    states = torch.randn(1, 1, 4, 8)
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        plain = attention_kernels(
            lambda: torch.nn.functional.scaled_dot_product_attention(states, states, states)
        )
    assert plain == {"math": 1}


PEAK = """
import torch
from mustdrop.profiling.device import Device
cpu = Device("cpu")
before = cpu.start_memory()
block = torch.ones(2**26)  # 256 MiB
assert before is None or cpu.peak_memory() >= before + 0.9 * block.nbytes
"""


def test_peak_memory_counts_from_its_start():
    """In a process of its own: memory that another test freed would be used again."""
    subprocess.run([sys.executable, "-c", PEAK], check=True)


def test_the_rates_of_a_device_are_those_of_a_product_and_of_a_copy():
    rates = measured_rates(CPU, torch.float32)
    left = torch.ones(512, 512)
    start = time.perf_counter()
    left @ left
    slow = 2 * 512**3 / (time.perf_counter() - start)
    assert rates["flops_per_second"] > 1e9 and rates["flops_per_second"] > slow / 100
    assert 1e8 < rates["bytes_per_second"] < 1e13
