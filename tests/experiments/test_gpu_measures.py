"""What `make gpu` measures: the whole script at tiny size on the CPU, and its parts."""

import json
import resource
import time
import warnings
from pathlib import Path

import pytest
import torch
from fake_views import prefill_view

from experiments.gpu.__main__ import main
from experiments.gpu.cells import MODELS, SIZES, main_arms, other_arms
from experiments.gpu.methods import small_methods
from experiments.gpu.models import require_room
from experiments.gpu.runner import NotHere, rows_of
from experiments.gpu.shapes import SHAPES, build
from experiments.gpu.time_tables import MODEL_PARTS, PARTS
from experiments.gpu.waits import counted_waits, decision_points
from mustdrop import TokenDropper
from mustdrop.prefill.fastv import FastV
from mustdrop.profiling import parts
from mustdrop.profiling.device import Device
from mustdrop.profiling.random_prompts import RandomPrompts
from mustdrop.profiling.reference import Reference, recorded

ROOT = Path(__file__).parents[2]
CPU = Device("cpu")
LIMIT = 60  # seconds of one core that a dry run may take


@pytest.fixture(scope="module")
def dry_run(tmp_path_factory) -> tuple[dict, str]:
    """Record and table of the dry run."""
    folder = tmp_path_factory.mktemp("gpu")
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert main(["--dry-run", "--limit", "290", "--out", str(folder)]) == 0
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    (record,), (text,) = folder.glob("*.json"), folder.glob("*.txt")
    work = after.ru_utime - before.ru_utime  # processor time: other work on the machine adds none
    return {**json.loads(record.read_text()), "work": work}, text.read_text()


@pytest.mark.slow
def test_a_dry_run_reaches_every_cell_without_an_error_and_in_time(dry_run):
    record, text = dry_run
    impossible = {
        entry["cell"] for entry in record["cells"] if entry["state"] == "not possible here"
    }
    assert impossible == {f"dropping = masking, bfloat16, flash_attention_{n}" for n in (2, 3)}
    assert {entry["state"] for entry in record["cells"]} == {"done", "not possible here"}
    assert record["finished"] and not any(entry["errors"] for entry in record["cells"])
    assert "Not reached\n- nothing: every step was reached" in text
    assert "flash_attention_2 needs a CUDA device and the package flash_attn" in text
    for entry in record["cells"]:
        assert entry["cell"] in text
    assert record["work"] < LIMIT


@pytest.mark.slow
def test_dropping_equals_masking_and_the_check_could_fail(dry_run):
    rows = list(rows_of(dry_run[0], "equality"))
    exact = [row for row in rows if row["dtype"] == "float32"]
    assert {row["attention"] for row in exact} == {"sdpa", "eager"}
    assert {row["batch"] for row in rows} == {"one prompt", "ragged batch"}
    for row in exact:
        assert row["error"] <= row["bar"] == 1e-5
        assert row["effect"] >= 0.1, row["method"]
    half = [row for row in rows if row["dtype"] == "bfloat16"]
    assert {row["attention"] for row in half} == {"sdpa, flash kernel", "sdpa, efficient kernel"}
    for row in half:
        assert 0 < row["noise"] < 0.2 and row["bar"] == 4 * row["noise"]
    assert all(row["passed"] for row in rows)


@pytest.mark.slow
def test_the_kernel_of_a_check_is_the_one_that_was_chosen(dry_run):
    kernels = {
        row["attention"]: row["kernels"]
        for row in rows_of(dry_run[0], "equality")
        if row["batch"] == "one prompt" and row["method"] == "fastv"
    }
    assert set(kernels["sdpa, flash kernel"]) == {"flash (CPU)"}
    assert set(kernels["sdpa, efficient kernel"]) == {"math"}  # the CPU has no efficient one
    assert kernels["eager"] == {}


@pytest.mark.slow
def test_every_arm_runs_next_to_its_reference_on_every_model(dry_run):
    record, text = dry_run
    times, facts = list(rows_of(record, "time")), list(rows_of(record, "facts"))
    assert {row["model"] for row in rows_of(record, "model") if "model" in row} == {*MODELS}
    for cell in {row["cell"] for row in times}:
        rows = [row for row in times if row["cell"] == cell]
        others = "other methods" in cell
        assert {row["arm"] for row in rows} == {
            "vanilla", *(other_arms()[:3] if others else main_arms()),
        }  # fmt: skip
        for arm in {row["arm"] for row in rows}:
            ways = [(row["round"], row["way"]) for row in rows if row["arm"] == arm]
            assert len(ways) == len(set(ways))
            assert {way for _, way in ways} == {"method", "reference"}
        key = "ttft_ms" if "first token" in cell else "e2e_3_ms"
        assert all(row[key] > 0 for row in rows)
        assert any(row.get("peak_bytes", row.get("peak_bytes_3")) for row in rows)
    for row in facts:
        assert row["flops"] > row["reference_flops"] * 0.9 and row["kv_bytes"] > 0
        assert row["attention"] and f"{row['executed_average']:.1f}" in text


@pytest.mark.slow
def test_the_parts_in_the_table_are_those_of_the_profiler(dry_run):
    assert PARTS == parts.PARTS
    assert set(PARTS) - set(MODEL_PARTS) == {*parts.DECISIONS}
    for row in rows_of(dry_run[0], "time"):
        if row["way"] == "method" and "ttft_ms" in row:
            total = sum(row[f"part_{part}_ms"] for part in PARTS)
            assert total == pytest.approx(row["ttft_ms"], rel=1e-6)
    assert "parts of the first token" in dry_run[1]


@pytest.mark.slow
def test_the_record_says_what_ran_where_and_what_its_numbers_mean(dry_run):
    record, text = dry_run
    assert record["versions"]["torch"] == torch.__version__
    assert record["device"]["settings"]["float32_matmul_precision"]
    assert record["schedules"]["origin"] and record["definitions"]["reference"]
    assert "Device waits of a prefill (on a CPU nothing waits)" in text
    assert "/ reference" in text and "TF32 off" in text
    assert str(ROOT) not in json.dumps(record["cells"])


@pytest.mark.slow
def test_the_must_have_cells_come_before_all_others(dry_run):
    names = [entry["cell"] for entry in dry_run[0]["cells"]]
    batches, tokens = SIZES["tiny"]["batches"], SIZES["tiny"]["new_tokens"]
    must = [
        f"{measure}, {model}, batch {batch}"
        for model in MODELS[:2]
        for measure in ("first token", f"{tokens} new tokens")
        for batch in batches
    ]
    assert names[2 : 2 + len(must)] == must
    assert {*main_arms()} == {
        f"{method} {budget}/576"
        for method in ("mustdrop", "fastv", "visionzip")
        for budget in (192, 64)
    }


def test_the_reference_at_full_length_is_the_model_itself():
    model = build(SHAPES["tiny"], "cpu", torch.float32)
    given = RandomPrompts(model, 1, (24, 24)).inputs(2)
    with torch.inference_mode():
        expected = model(**given, logits_to_keep=1).logits[:, -1].argmax(-1)
    work, _ = recorded(model, given, TokenDropper())
    token, cache, _ = Reference(model, given, work, CPU).prefill()
    assert torch.equal(token, expected)
    assert [layer.get_seq_length() for layer in cache.layers] == [101] * 6


def test_a_device_that_is_too_small_is_no_failure():
    require_room(CPU, 1, "nothing")
    with pytest.raises(NotHere, match=r"the model needs about 9\d+ GiB, and the device has \d+"):
        require_room(CPU, 10**12, "the model")


def test_waits_are_counted_with_the_line_of_ours_that_waits(monkeypatch):
    modes: list[str] = []
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", modes.append)

    def log_score(score: torch.Tensor) -> None:
        warnings.warn("called a synchronizing CUDA operation", stacklevel=1)

    attention = torch.rand(2, 1, 20)
    view = prefill_view(20, attention=lambda rows, of="this": attention, log_score=log_score)
    with counted_waits(Device("cuda")) as lines:
        FastV(keep=4).reduce(view)
        FastV(keep=4).reduce(view)
        warnings.warn("something else", stacklevel=1)
    assert modes == ["warn", "default"]
    assert len(lines) == 2
    assert lines[0].startswith("mustdrop/prefill/fastv.py:")
    assert lines[0].endswith("view.log_score(score)")
    with counted_waits(CPU) as lines:
        time.sleep(0)
    assert lines == [] and modes == ["warn", "default"]


def test_places_are_where_a_method_decides():
    assert decision_points(None) == decision_points(TokenDropper()) == 0
    assert decision_points(small_methods(36)["mustdrop"]) == 1 + 1 + 2 + 1
    assert decision_points(small_methods(36)["tome"]) == 3
