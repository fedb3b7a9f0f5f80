"""What `make gpu` measures: the whole script at tiny size on the CPU, and its parts."""

import json
import warnings
from itertools import pairwise
from pathlib import Path
from typing import ClassVar

import jaxtyping
import pytest
import torch
from fake_views import prefill_view

from experiments.gpu.__main__ import main
from experiments.gpu.methods import SCHEDULES, schedules, small_methods
from experiments.gpu.runner import rows_of
from experiments.gpu.shapes import SHAPES, build, questions
from experiments.gpu.timing import Bench
from experiments.gpu.waits import counted_waits, decision_points
from mustdrop import TokenDropper
from mustdrop.prefill.dual_attention import DualAttention
from mustdrop.prefill.fastv import FastV
from mustdrop.profiling.counted import Counted
from mustdrop.profiling.device import Device
from mustdrop.profiling.reference import Reference, recorded

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def arithmetic():
    """The script switches TF32 off for its process; here the process goes on."""
    convolution, matmul = torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()
    yield
    torch.backends.cudnn.allow_tf32 = convolution
    torch.set_float32_matmul_precision(matmul)


@pytest.fixture(scope="module")
def dry_run(tmp_path_factory) -> tuple[dict, str]:
    """Record and table of the dry run."""
    folder = tmp_path_factory.mktemp("gpu")
    jaxtyping.config.update(
        "jaxtyping_disable", True
    )  # as on a GPU machine; it takes half the time
    assert main(["--dry-run", "--out", str(folder)]) == 0
    jaxtyping.config.update("jaxtyping_disable", False)
    (record,), (text,) = folder.glob("*.json"), folder.glob("*.txt")
    return json.loads(record.read_text()), text.read_text()


def test_a_dry_run_reaches_every_cell_without_an_error(dry_run):
    record, text = dry_run
    assert {entry["state"] for entry in record["cells"]} == {"done"}
    assert record["finished"] and not any(entry["errors"] for entry in record["cells"])
    assert "Not reached\n- nothing: every step was reached" in text
    for entry in record["cells"]:
        assert entry["cell"] in text


def test_dropping_equals_masking_and_the_check_could_fail(dry_run):
    rows = list(rows_of(dry_run[0], "equality"))
    exact = [row for row in rows if row["dtype"] == "float32"]
    assert {row["attention"] for row in exact} == {"sdpa", "eager"}
    assert {row["batch"] for row in exact} == {"one prompt", "ragged batch"}
    for row in exact:
        assert row["passed"] is True and row["error"] <= row["bar"] == 1e-5
        assert row["effect"] >= 0.1, row["method"]
    for row in rows:
        if row["dtype"] == "bfloat16":
            assert row["passed"] is None and 0 < row["noise"] < 0.2
            assert row["error"] <= 4 * row["noise"], row["method"]


def test_every_arm_runs_next_to_its_reference_and_at_the_scheduled_counts(dry_run):
    record, text = dry_run
    times = list(rows_of(record, "time"))
    for cell in {row["cell"] for row in times}:
        own = [row for row in times if row["cell"] == cell]
        arms = {row["arm"] for row in own}
        assert arms == {"vanilla", "mustdrop t12", "mustdrop t8", "fastv t12", "fastv t8"}
        for arm in arms:
            ways = [(row["round"], row["way"]) for row in own if row["arm"] == arm]
            assert len(ways) == len(set(ways))
            assert {way for _, way in ways} == {"method", "reference"}
        assert all(row["total_ms"] > 0 for row in own)
    counts = schedules("tiny")
    for row in rows_of(record, "lengths"):
        if row["arm"] != "vanilla":
            method, budget = row["arm"].split()
            entered = row["vision_tokens"]
            plan = counts[method][budget]
            after = plan.get("after", [plan.get("keep")])
            layers = plan.get("layers", [plan.get("layer")])
            assert [entered[layer + 1] for layer in layers] == after
            assert entered[0] == 36 - 8 * plan.get("merged_windows", 0)
            assert not row["ragged"]
            assert f"{row['executed_average']:.1f}" in text


def test_the_record_says_what_ran_where_and_what_its_numbers_mean(dry_run):
    record, text = dry_run
    assert record["versions"]["torch"] == torch.__version__
    assert record["device"]["settings"]["float32_matmul_precision"] == "highest"
    assert record["schedules"]["origin"] and record["definitions"]["reference"]
    assert "Device waits: not measurable on the CPU" in text
    assert "total/reference" in text and "TF32 off" in text
    assert str(ROOT) not in json.dumps(record["cells"])


def test_the_schedules_state_their_origin_and_meet_their_budgets():
    stored = json.loads(SCHEDULES.read_text())
    for name in ("llava15_7b mustdrop", "llava15_7b fastv", "tiny"):
        assert f"{name}: " in " ".join(stored["origin"])
    for shape, slots, depth in (("llava15_7b", 576, 32), ("tiny", 36, 6)):
        for method, budgets in stored[shape].items():
            for budget, plan in budgets.items():
                entered = slots - 8 * plan.get("merged_windows", 0)
                layers = plan.get("layers", [plan.get("layer")])
                left = [entered, *plan.get("after", [plan.get("keep")])]
                ends = [0, *(layer + 1 for layer in layers), depth]
                spans = [later - sooner for sooner, later in pairwise(ends)]
                executed = sum(n * span for n, span in zip(left, spans, strict=True)) / depth
                assert executed == pytest.approx(int(budget[1:]), rel=0.05), (method, budget)
                assert left == sorted(left, reverse=True)


@pytest.mark.parametrize("budget", ["t192", "t64"])
def test_the_schedule_has_the_shape_of_the_record_that_it_names(budget):
    folder = ROOT / "notebooks/records/example/pocket/mustdrop" / budget
    (path,) = folder.glob("*/samples.jsonl")
    samples = [json.loads(line) for line in path.read_text().splitlines()]
    layers = [0, 1, 3, 4, 6]  # the input, and behind each drop
    measured = [sum(one["vision_tokens"][at] for one in samples) / len(samples) for at in layers]
    plan = schedules("llava15_7b")["mustdrop"][budget]
    assert 576 - 8 * plan["merged_windows"] == pytest.approx(measured[0], abs=4)
    factor = plan["after"][-1] / measured[-1]
    for count, mean in zip(plan["after"], measured[1:], strict=True):
        assert count == pytest.approx(factor * mean, rel=0.01, abs=1)


def test_a_scheduled_filter_keeps_the_best_of_its_own_scores_and_every_key_token():
    attention = torch.rand(2, 5, 20)
    protected = torch.zeros(20, dtype=torch.bool)
    protected[3] = True
    logged: list[torch.Tensor] = []
    view = prefill_view(
        20, layer=6, protected=protected, protected_count=1, log_score=logged.append,
        attention=lambda rows, of="this": attention,
    )  # fmt: skip
    strategy = Counted(DualAttention(0.001, 0.001, [2, 6]), [9, 7])
    kept = strategy.reduce(view).keep.tolist()
    share = attention.mean(0).sum(0)
    share[3] = torch.inf
    assert kept == sorted(share.topk(7).indices.tolist())
    assert strategy.layers == (2, 6)


@pytest.fixture(scope="module")
def tiny_model():
    return build(SHAPES["tiny"], "cpu", torch.float32)


def test_the_reference_at_full_length_is_the_model_itself(tiny_model):
    given = questions(SHAPES["tiny"], tiny_model, 2)
    with torch.inference_mode():
        expected = tiny_model(**given, logits_to_keep=1).logits[:, -1].argmax(-1)
    work, _ = recorded(tiny_model, given, TokenDropper())
    token, cache, _ = Reference(tiny_model, given, work, Device("cpu")).prefill()
    assert torch.equal(token, expected)
    assert [layer.get_seq_length() for layer in cache.layers] == [101] * 6


def test_the_reference_runs_every_layer_at_the_executed_length(tiny_model):
    bench = Bench(Device("cpu"), "tiny", 2, 3, lambda: tiny_model)
    bench.build()
    lengths = bench.warm_up("mustdrop t12", bench.generate, 0)
    seen: dict[str, list[int]] = {"encoder": [], "layers": []}
    handles = [
        module.register_forward_pre_hook(
            lambda module, args, part=part: seen[part].append(args[0].shape[1])
        )
        for part, modules in (
            ("encoder", bench.adapter.encoders[0].blocks),
            ("layers", bench.adapter.layers),
        )
        for module in modules
    ]
    bench.references["mustdrop t12"].generate(3)
    for handle in handles:
        handle.remove()
    assert seen["encoder"] == [1 + tokens for tokens in lengths["encoder"][:-1]]
    assert seen["layers"][:6] == [65 + tokens for tokens in lengths["vision_tokens"]]
    assert seen["layers"][6:] == [1] * 12


class Watched(Device):
    """A CPU that keeps a list of the calls."""

    calls: ClassVar[list[str]] = []

    def wait(self) -> None:
        self.calls.append("wait")

    def mark(self) -> float:
        self.calls.append("mark")
        return super().mark()


@pytest.mark.parametrize("way", ["method", "reference"])
def test_the_device_is_waited_for_around_a_timed_region_and_not_within(tiny_model, way):
    device = Watched("cpu")
    bench = Bench(device, "tiny", 1, 2, lambda: tiny_model)
    bench.build()
    for arm in ("vanilla", "fastv t12"):
        bench.warm_up(arm, bench.prefill, 0)
        device.calls.clear()
        row = bench.prefill(arm, way)
        assert device.calls == ["wait", *["mark"] * 4, "wait"]
        assert row["encoder_ms"] + row["prefill_ms"] < row["total_ms"]


def test_waits_are_counted_with_the_line_of_ours_that_waits(monkeypatch):
    modes: list[str] = []
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", modes.append)

    def log_score(score: torch.Tensor) -> None:
        warnings.warn("called a synchronizing CUDA operation", stacklevel=1)

    attention = torch.rand(2, 1, 20)
    view = prefill_view(20, attention=lambda rows, of="this": attention, log_score=log_score)
    with counted_waits() as lines:
        FastV(keep=4).reduce(view)
        FastV(keep=4).reduce(view)
        warnings.warn("something else", stacklevel=1)
    assert modes == ["warn", "default"]
    assert len(lines) == 2
    assert lines[0].startswith("mustdrop/prefill/fastv.py:")
    assert lines[0].endswith("view.log_score(score)")


def test_places_are_where_a_method_decides():
    assert decision_points(None) == decision_points(TokenDropper()) == 0
    assert decision_points(small_methods(36)["mustdrop"]) == 1 + 1 + 2 + 1
    assert decision_points(small_methods(36)["tome"]) == 3
