"""The calibrator meets a target that can be met, and says so where it cannot."""

import math
import sys

import pytest
import torch
import yaml
from omegaconf import OmegaConf

from experiments import calibrate as script
from experiments.compose import composed, conf_dir
from mustdrop import TokenDropper
from mustdrop.harness.calibrate import Found, OutOfReach, bisect, executed_average, with_field
from mustdrop.prefill.fastv import FastV


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("target", [200.0, 64.0, 9.0])
def test_a_target_of_a_monotone_function_is_met(sign, target):
    def measure(value):
        return 576 / (1 + (1000 * value) ** (1.7 * sign))

    found = bisect(measure, target, 1e-6, 1.0, tolerance=0.001, steps=60)
    assert isinstance(found, Found)
    assert abs(found.measured - target) <= 0.001 * target
    assert found.measured == measure(found.value)
    assert found.error == found.measured / target - 1
    # closed form: the value that gives the target exactly
    assert found.value == pytest.approx((576 / target - 1) ** (sign / 1.7) / 1000, rel=0.01)


def test_it_halves_and_does_not_scan():
    asked = []
    bisect(lambda value: asked.append(value) or value, 0.3, 1e-9, 1.0, tolerance=1e-4, steps=99)
    assert len(asked) <= 2 + math.log2(9 * math.log(10) / 1e-4) + 1


def test_steps_larger_than_the_tolerance_give_the_nearest_one():
    found = bisect(lambda value: 100.0 * math.floor(10 * value), 430.0, 0.0, 1.0)
    assert isinstance(found, Found)
    assert found.measured == 400


def test_a_target_out_of_reach_is_told_with_the_nearest():
    assert bisect(lambda value: 300 - 100 * value, 64.0, 0.0, 1.0) == OutOfReach(200.0, 64.0)
    assert bisect(lambda value: 300 - 100 * value, 400.0, 0.0, 1.0) == OutOfReach(300.0, 400.0)
    with pytest.raises(ValueError, match="low < high"):
        bisect(lambda value: value, 1.0, 2.0, 1.0)


def test_a_field_is_set_by_stage_and_name():
    dropper = TokenDropper(prefill=FastV(keep=3))
    assert with_field(dropper, "prefill.keep", 7).prefill == FastV(keep=7)
    assert dropper.prefill == FastV(keep=3)
    for place in ("prefill.ratio", "vision.tau", "prefill", "nothing.keep"):
        with pytest.raises(ValueError, match="is no field of a stage in use"):
            with_field(dropper, place, 1)


class Silent:
    def print(self, *args):
        pass


def configured(*overrides):
    return composed(
        "method=mustdrop", "prefill.alpha=1e-2", "calibration.n=12", "batch_size=12",
        "calibration.tolerance=0.01", *overrides, name="calibrate",
    )  # fmt: skip


def test_it_meets_a_budget_on_pocket_and_measures_on_what_was_held_out(monkeypatch):
    measured = []

    def spied(model, dropper, batches):
        measured.append((dropper.prefill.gamma, executed_average(model, dropper, batches)))
        return measured[-1][1]

    monkeypatch.setattr(script, "executed_average", spied)
    found, held_out = script.calibrate(configured("budget=t128"), Silent())
    assert isinstance(found, Found)
    assert abs(found.measured / 128 - 1) <= 0.01
    assert (found.value, held_out) == measured[-1]
    assert held_out != found.measured
    assert torch.is_grad_enabled()


def test_a_budget_below_the_key_tokens_is_out_of_reach():
    # every token whose attention is not wholly its own is protected
    found, _ = script.calibrate(configured("budget=t64", "key_tokens.mu=-9.0"), Silent())
    assert isinstance(found, OutOfReach)
    assert found.nearest > 64


def test_the_written_file_is_what_the_next_run_reads(tmp_path, monkeypatch):
    monkeypatch.setattr(script, "conf_dir", lambda: tmp_path)
    (tmp_path / "prefill").symlink_to(conf_dir() / "prefill")
    choices = OmegaConf.create({"runtime": {"choices": {"prefill": "dual_attention"}}})
    monkeypatch.setattr(script.HydraConfig, "get", lambda: choices)
    cfg = configured("budget=t128", "prefill.gamma=1e-3")
    path = script.write(cfg, Found(2.5e-3, 127.3, 128.0, 9), 130.1)
    assert (
        path.relative_to(tmp_path).as_posix() == "tuned/pocket/pocket_vqa/dual_attention_t128.yaml"
    )
    assert yaml.safe_load(path.read_text()) == {"gamma": 2.5e-3, "alpha": 1e-2}
    for told in ("127.3", "12 questions", "130.1 (+1.6% off", "crowded_calibration", "seed 0"):
        assert told in path.read_text()
    path = script.write(cfg, OutOfReach(140.25, 128.0), None)
    assert path.name == "mustdrop_t128_floor.yaml"
    assert yaml.safe_load(path.read_text()) == {"floor": 140.2}


def test_bad_input_is_one_line(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["calibrate.py", "budget=none", "prefill.alpha=1e-2"])
    with pytest.raises(SystemExit) as left:
        script.main()
    assert left.value.code == 2
    told = capsys.readouterr().err.strip()
    assert told == "error: there is no budget to meet: choose one, as in budget=t128"
