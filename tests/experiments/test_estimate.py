"""The time of a sweep before it starts: FLOPs of each run times seconds of a probe."""

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from experiments.sweeps.cells import plan
from experiments.sweeps.estimate import RunTimes, control_passes, estimated, flops_ratio
from experiments.sweeps.probes import Probe, kept_probe, probe_config, read_probe
from mustdrop.budget import Budget
from mustdrop.cost import DecoderShape
from mustdrop.evaluation.job import EvalJob
from mustdrop.presets.compose import composed, resolved
from mustdrop.runs.folder import read_records

SHAPE = DecoderShape(hidden=64, query=64, kv=64, ffn=128, vocab=100)
PROBE = Probe(
    available=100, processor=0.1, model=1.0, fastest=0.8, slowest=2.0, text=24.0, vision=576.0,
    encoder_macs=1e6, depth=12, decoder=SHAPE,
)  # fmt: skip


def test_the_ratio_is_that_of_the_closed_form():
    def macs(tokens):
        return 1e6 + 12 * SHAPE.layer_macs(tokens + 24) + 64 * 100

    assert flops_ratio(PROBE, None) == 1
    for budget, tokens in ((Budget(tokens=128), 128), (Budget(share=0.25), 144)):
        assert flops_ratio(PROBE, budget) == pytest.approx(macs(tokens) / macs(576))
    assert flops_ratio(PROBE, Budget(tokens=900)) == 1  # no more tokens than the prompt has
    assert flops_ratio(replace(PROBE, vision=0.0), Budget(tokens=1)) == 1  # prompts of text


def test_controls_are_further_passes_and_the_range_goes_to_a_run_without_saving():
    config = resolved(composed("method=fastv", "budget=t128", "benchmark.limit=40"))
    assert control_passes(config["controls"]) == 2 and control_passes(None) == 0
    times = RunTimes("x", PROBE)
    times.add(config, answered=10)
    ratio = flops_ratio(PROBE, Budget(tokens=128))
    assert (times.runs, times.samples) == (1, 30)
    assert times.seconds == pytest.approx(30 * (0.1 + 3 * ratio))
    assert times.low == pytest.approx(30 * (0.1 + 3 * ratio * 0.8))
    assert times.high == pytest.approx(30 * (0.1 + 3 * 2.0))
    vanilla = RunTimes("x", PROBE)
    vanilla.add(resolved(composed("method=vanilla", "benchmark.limit=400")), answered=0)
    assert vanilla.samples == 100 and vanilla.seconds == pytest.approx(110)


def test_a_probe_has_the_runs_model_and_questions_and_vanillas_method():
    given = [
        "experiment=table1", "method=fastv", "prefill.layer=4", "budget=t64", "benchmark=gqa",
        "benchmark.limit=7", "batch_size=4", "calibrate_with=gqa", "model.dtype=float32",
    ]  # fmt: skip
    cfg = probe_config(given, 20)
    assert (cfg.method.name, cfg.budget, cfg.prefill, cfg.controls) == (
        "vanilla",
        "none",
        *[None] * 2,
    )
    assert (cfg.inputs, cfg.model.dtype, cfg.benchmark.name) == ("authors", "float32", "gqa")
    assert (cfg.experiment, cfg.benchmark.limit, cfg.batch_size) == ("probe", 24, 4)


def test_the_first_batch_of_a_probe_warms_up(tmp_path):
    lines = [
        {"doc_id": number, "model_seconds": seconds, "processor_seconds": 0.5, "prompt_tokens": 600,
         "counts": {"executed_average": 576.0}, "encoder_macs": 7, "vision_tokens": [576] * 12}
        for number, seconds in enumerate((9.0, 9.0, 1.0, 1.0, 2.0))
    ]  # fmt: skip
    (tmp_path / "samples.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    (tmp_path / "record.json").write_text(json.dumps({"available": 50}))
    shape = {name: getattr(SHAPE, name) for name in SHAPE.__dataclass_fields__}
    (tmp_path / "probe.json").write_text(json.dumps({"decoder": shape}))
    probe = read_probe(tmp_path)
    assert (probe.fastest, probe.slowest, probe.model) == (1.0, 2.0, pytest.approx(4 / 3))
    assert (probe.text, probe.depth, probe.decoder) == (24.0, 12, SHAPE)


def test_a_probe_that_fails_is_a_line_and_stops_nothing(monkeypatch, tmp_path):
    def broken(*_):
        raise RuntimeError("a fault of the run")

    monkeypatch.setattr(EvalJob, "run", broken)
    cells = plan("none", ["method=vanilla", f"output_root={tmp_path}", "workers=0"])
    estimate = estimated(cells, 16, True, Console(file=io.StringIO()))
    (reason,) = estimate.unknown.values()
    status = Path(reason.removeprefix("the run of the probe failed, its error is in "))
    assert "a fault of the run" in json.loads(status.read_text())["error"]
    assert not estimate.times


@pytest.mark.slow
def test_an_estimate_is_near_the_time_of_the_runs_and_its_probe_is_kept(tmp_path, monkeypatch):
    from experiments.sweep import run_here

    given = [
        "method=vanilla,fastv,divprune", "budget=t128", "benchmark.limit=32", "batch_size=8",
        "workers=0", "threads=1", f"output_root={tmp_path}",
    ]  # fmt: skip
    cells, console = plan("none", given), Console(width=120, record=True)
    assert "not measured on this machine" in str(estimated(cells, 16, False, console).unknown)
    estimate = estimated(cells, 16, True, console)
    estimate.show(console)
    assert "pocket pocket_vqa" in console.export_text()
    (times,) = estimate.times
    assert (times.runs, times.samples) == (3, 96)
    assert times.low <= times.seconds <= times.high
    assert run_here(cells, console) == 0
    real = sum(
        record["seconds"] + record.get("controls_seconds", 0.0)
        for record in read_records(tmp_path / "run")
    )
    assert 0.1 < real / times.seconds < 10  # a busy machine: 1.2 to 3.8
    # a machine that others use too changes its speed between the probe and the runs
    assert times.low / 4 < real < times.high * 4
    assert not estimated(cells, 16, True, console).times  # nothing is left to run
    cfg = probe_config(cells[1].overrides, 16)
    assert kept_probe(cfg) == times.probe
    monkeypatch.setattr("platform.node", lambda: "elsewhere")
    assert kept_probe(cfg) is None
