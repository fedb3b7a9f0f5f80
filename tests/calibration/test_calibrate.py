"""The calibrator meets a target that can be met, and says so where it cannot."""

import math
import sys
from contextlib import nullcontext
from dataclasses import replace
from statistics import fmean

import pytest
import torch
import yaml
from families import FAMILIES
from hydra.utils import instantiate
from models import prompt, tiny_llava
from omegaconf import OmegaConf

from analysis.statistics.intervals import Interval
from experiments import calibrate as script
from experiments import tuned_table as tuned
from experiments.calibration_field import require_floor, require_points
from mustdrop import TokenDropper
from mustdrop.budget import Budget
from mustdrop.calibration.observe import observe
from mustdrop.calibration.search import (
    OutOfReach,
    SearchResult,
    bisect,
    certain,
    estimate_guided,
    scan,
)
from mustdrop.calibration.threshold import executed, threshold, with_field
from mustdrop.prefill.dual_attention import DualAttention
from mustdrop.prefill.fastv import FastV
from mustdrop.prefill.random import Random
from mustdrop.presets import tuned as presets_tuned
from mustdrop.presets.compose import composed
from mustdrop.presets.folders import conf_dir


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("target", [200.0, 64.0, 9.0])
def test_a_target_of_a_monotone_function_is_met(sign, target):
    def measure(value):
        return 576 / (1 + (1000 * value) ** (1.7 * sign))

    found = bisect(measure, target, 1e-6, 1.0, tolerance=0.001, steps=60)
    assert isinstance(found, SearchResult)
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
    assert isinstance(found, SearchResult)
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


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("off", [1.0, 0.7, 1.5])
def test_an_estimate_that_is_nearly_right_saves_measurements(sign, off):
    def truth(value):
        return 576 / (1 + (300 * value) ** (1.3 * sign))

    def likely(value):
        return off * 576 / (1 + (300 * value) ** (1.2 * sign))

    for target in (300.0, 64.0):
        found = estimate_guided(truth, likely, sign < 0, target, 1e-5, 1.0, 0.005)
        assert isinstance(found, SearchResult)
        assert abs(found.measured / target - 1) <= 0.005
        assert found.measured == truth(found.value)
        assert found.steps <= 6 < bisect(truth, target, 1e-5, 1.0, 0.005).steps


def test_an_estimate_that_is_wrong_costs_measurements_and_no_more():
    def truth(value):
        return 100 * value

    found = estimate_guided(
        truth, lambda value: 100 * value**9, True, 30.0, 0.0, 1.0, 0.004, steps=40
    )
    assert isinstance(found, SearchResult)
    assert abs(found.measured / 30 - 1) <= 0.004


def test_a_guided_search_tells_what_is_out_of_reach():
    def truth(value):
        return 300 - 100 * value

    for off in (0.5, 1.0, 2.0):
        found = estimate_guided(
            truth, lambda value, off=off: off * truth(value), False, 64.0, 0.0, 1.0
        )
        assert found == OutOfReach(200.0, 64.0)
        found = estimate_guided(
            truth, lambda value, off=off: off * truth(value), False, 400.0, 0.0, 1.0
        )
        assert found == OutOfReach(300.0, 400.0)


def test_a_guided_search_ends_where_a_step_is_larger_than_the_tolerance():
    found = estimate_guided(
        lambda x: 100.0 * math.floor(10 * x), lambda x: 1000 * x, True, 430.0, 0.0, 1.0, steps=30
    )
    assert isinstance(found, SearchResult)
    assert found.measured == 400


def test_what_rises_and_falls_is_scanned():
    def hill(value):
        return 200 - (value - 6) ** 2 * 10

    found = scan(hill, 150.0, 0.0, 10.0, 0.001)
    assert isinstance(found, SearchResult)
    assert found.value == pytest.approx(6 + math.sqrt(5), rel=0.01)
    assert isinstance(bisect(hill, 150.0, 5.0, 7.0), OutOfReach)
    above = scan(hill, 220.0, 0.0, 10.0)
    assert isinstance(above, OutOfReach) and above.nearest == pytest.approx(200, abs=1)


def test_how_far_something_holds():
    assert certain(lambda value: value < 3.3, 0.0, 8.0) == pytest.approx(3.3, abs=8 / 2**8)
    assert certain(lambda value: value > 3.3, 8.0, 0.0) == pytest.approx(3.3, abs=8 / 2**8)
    assert certain(lambda value: value > 3.3, 0.0, 8.0) == 0.0


class Silent:
    def print(self, *args):
        pass


def configured(*overrides):
    return composed(
        "calibration.n=8", "batch_size=8", "calibration.tolerance=0.01", *overrides,
        name="calibrate",
    )  # fmt: skip


@pytest.fixture
def measured(monkeypatch):
    """What the model was run for: (dropper, executed average)."""
    runs = []

    def spied(model, dropper, batches, tick, shares):
        found = executed(model, dropper, batches, tick, shares)
        runs.append((dropper, sum(found) / len(found)))
        return found

    monkeypatch.setattr(script, "executed", spied)
    return runs


def test_it_meets_a_budget_on_pocket_and_measures_on_what_was_held_out(measured):
    cfg = configured("method=mustdrop", "budget=t128", "prefill.alpha=1e-2")
    done = script.calibrate(cfg, Silent())
    found, held_out = done.result, done.held_out
    assert isinstance(found, SearchResult) and held_out is not None
    assert abs(found.measured / 128 - 1) <= 0.01
    assert measured[-2][0].prefill.gamma == measured[-1][0].prefill.gamma == found.value
    assert found.value == float(tuned.number(found.value))  # the row holds this very value
    assert (measured[-2][1], measured[-1][1]) == (found.measured, pytest.approx(held_out.value))
    assert held_out.low < held_out.value < held_out.high
    assert held_out.value != found.measured
    assert len(measured) == found.steps + 1 < 6
    assert torch.is_grad_enabled()
    # the next budget asks no more than it must: it is watched already
    again = script.calibrate(
        configured("method=mustdrop", "budget=t192", "prefill.alpha=2e-2"), Silent()
    )
    assert again.passes == again.result.steps


def test_more_questions_may_be_held_out_than_searched_on(measured):
    options = ("method=mustdrop", "budget=t128", "prefill.alpha=1e-2", "batch_size=4")
    few = script.calibrate(configured(*options, "calibration.n=4"), Silent())
    del measured[:]
    many = script.calibrate(
        configured(*options, "calibration.n=4", "calibration.held_out=10"), Silent()
    )
    assert many.result == few.result
    parts = measured[-3:]  # 4, 4 and 2 questions
    expected = (4 * parts[0][1] + 4 * parts[1][1] + 2 * parts[2][1]) / 10
    assert many.held_out.value == pytest.approx(expected)
    assert few.held_out.value == pytest.approx(parts[0][1])


@pytest.mark.parametrize("amounts", [("0", "null"), ("8", "0"), ("8", "19993")])
def test_a_split_has_too_few_questions(amounts):
    n, held_out = (
        f"calibration.{name}={x}" for name, x in zip(("n", "held_out"), amounts, strict=True)
    )
    with pytest.raises(ValueError, match="at least 1 and at most 10000 together"):
        script.calibrate(configured("budget=t128", "prefill.alpha=1e-2", n, held_out), Silent())


@pytest.mark.parametrize(
    "asked",
    [
        ("method=mustdrop_merge", "budget=t288", "calibration.field=vision.tau"),
        ("method=mustdrop", "budget=t192", "prefill.layers=[2]", "prefill.alpha=1e-2"),
        (
            "method=mustdrop", "budget=t192", "prefill.layers=[2]", "prefill.alpha=1e-2",
            "prefill.gamma=5e-3", "calibration.field=key_tokens.mu", "calibration.low=-5.0",
        ),
    ],
)  # fmt: skip
def test_what_a_replay_knows_is_met_without_a_pass(measured, asked):
    done = script.calibrate(configured("calibration.tolerance=0.05", *asked), Silent())
    assert isinstance(done.result, SearchResult) and done.result.steps == 0
    assert abs(done.result.measured / done.result.target - 1) <= 0.05
    assert len(measured) == 1
    # and what is foretold of the first questions is what the model does with them
    cfg = configured()
    node = OmegaConf.to_yaml(cfg.benchmark.calibration, resolve=True)
    same = script.questions(instantiate(cfg.model), "auto", node, 8, 8, 8)
    again = executed(same.model, measured[0][0], same.prompts)
    assert fmean(again) == pytest.approx(done.result.measured)


def test_merging_that_another_stage_follows_is_scanned(measured):
    cfg = configured(
        "method=mustdrop", "budget=t128", "calibration.field=vision.tau", "calibration.low=58.0",
        "prefill.gamma=3.2e-3", "prefill.alpha=1e-2", "calibration.tolerance=0.05",
    )  # fmt: skip
    done = script.calibrate(cfg, Silent())
    assert isinstance(done.result, SearchResult) and abs(done.result.measured / 128 - 1) <= 0.05
    asked = [dropper.vision.tau for dropper, _ in measured[:-1]]
    # from the least merging on, evenly, until one meets it or two enclose it
    assert asked[0] == 72.0 and len(asked) == done.result.steps
    averages = [average for _, average in measured[:-1]]
    assert averages[0] > averages[1] < averages[2], "a bisection would do: this proves nothing"


def test_a_budget_below_the_key_tokens_is_out_of_reach(measured):
    asked = ("method=mustdrop", "budget=t64", "prefill.alpha=1e-2")
    # every token whose attention is not wholly its own is protected: no need to run the model
    done = script.calibrate(configured(*asked, "key_tokens.mu=-9.0"), Silent())
    assert isinstance(done.result, OutOfReach) and done.held_out is None
    assert done.result.nearest > 64 and not measured
    # some are: what the later layers leave has to be measured, once
    done = script.calibrate(configured(*asked, "key_tokens.mu=0.5"), Silent())
    assert isinstance(done.result, OutOfReach) and done.result.nearest > 64
    assert [average for _, average in measured] == [done.result.nearest]


@pytest.mark.parametrize(
    ("limits", "nearest", "message"),
    [
        ((), 80.0, None),
        (("calibration.low=1e-5", "calibration.high=0.5"), 80.0, None),
        (("calibration.high=1e-3",), 80.0, r"no prefill.gamma in \[1e-05, 0.001\] meets 64 tokens"),
        (("calibration.low=1e-3",), 80.0, r"in \[0.001, 0.5\] meets .* search \[1e-05, 0.5\]"),
        ((), 50.0, "at every value of prefill.gamma the method keeps fewer than 64 tokens"),
    ],
)
def test_only_a_search_of_the_whole_range_finds_a_floor(limits, nearest, message):
    cfg = configured("method=mustdrop", "budget=t64", "prefill.alpha=1e-2", *limits)
    OmegaConf.update(cfg, FIELD, 1e-3)
    with nullcontext() if message is None else pytest.raises(ValueError, match=message):
        require_floor(cfg, FIELD, OutOfReach(nearest, 64.0))


def test_without_a_replay_it_is_scanned():
    found = threshold(
        lambda value: 10 * value, None, TokenDropper(), "x.y", Budget(tokens=50), 0.0, 8.0,
        tolerance=0.01,
    )  # fmt: skip
    assert isinstance(found, SearchResult) and found.steps > 0
    assert found.value == pytest.approx(5, rel=0.02)


def test_without_a_replay_two_points_are_the_ends_of_the_range():
    values = []

    def measure(value):
        values.append(value)
        return 10 * value

    found = threshold(
        measure, None, TokenDropper(), "x.y", Budget(tokens=50), 1.0, 8.0, tolerance=0.01, points=2
    )
    assert isinstance(found, SearchResult) and found.value == pytest.approx(5, rel=0.02)
    assert values[:2] == [8.0, 1.0]


@pytest.mark.parametrize("points", ["1", "true", "2.5"])
def test_points_must_be_a_count(points):
    cfg = configured("budget=t64", "prefill.alpha=1e-2", f"calibration.points={points}")
    with pytest.raises(ValueError, match=r"calibration\.points must be a count of 2 or more, got"):
        require_points(cfg)


def test_a_share_is_met_on_prompts_of_different_sizes(model, uneven):
    """The mean share is met, not the share of the mean."""
    dropper = TokenDropper(prefill=DualAttention(0.05, None, layers=[2]))
    budget = Budget(share=0.6)

    def measure(value):
        return fmean(
            executed(model, with_field(dropper, "prefill.gamma", value), uneven, shares=True)
        )

    replay = observe(model, dropper, "prefill.gamma", uneven)
    assert len({prompt.cells for prompt in replay.prompts}) == 2
    found = threshold(measure, replay, dropper, "prefill.gamma", budget, 1e-3, 0.5, 0.03)
    assert isinstance(found, SearchResult) and found.target == 0.6
    assert abs(found.measured / 0.6 - 1) <= 0.03
    assert measure(found.value) == pytest.approx(found.measured)
    averages = executed(model, with_field(dropper, "prefill.gamma", found.value), uneven)
    tokens = [prompt.cells for prompt in replay.prompts]
    assert fmean(averages) / fmean(tokens) != pytest.approx(found.measured, rel=1e-3)


def test_a_share_is_one_of_the_cells_and_newlines_are_not_counted():
    """Pictures of 24 x 48 and 48 x 48 pixels: 108 and 180 cells, with 6 and 12 newlines."""
    family = FAMILIES["llava_next"]
    model = family.model()
    batches = [family.inputs(model, family.prompts[number]) for number in (0, 2)]
    quarter = TokenDropper(prefill=Random(Budget(share=0.25)))
    assert executed(model, quarter, batches) == [27, 45]
    assert executed(model, quarter, batches, shares=True) == [0.25, 0.25]
    dropper = TokenDropper(prefill=DualAttention(0.05, None, layers=[2]))
    replay = observe(model, dropper, "prefill.gamma", batches)
    assert replay is not None
    assert [(prompt.cells, prompt.entered) for prompt in replay.prompts] == [(108, 114), (180, 192)]
    counts = replay.range(with_field(dropper, "prefill.gamma", 0.0), shares=True)
    assert counts.high == pytest.approx((114 / 108 + 192 / 180) / 2)


@pytest.fixture(scope="module")
def model():
    return tiny_llava()


@pytest.fixture(scope="module")
def uneven(model):
    """Two prompts with one image, and one with three."""
    return [prompt(model, seed=1, flat=0.3), prompt(model, seed=2), prompt(model, images=3, seed=3)]


@pytest.fixture
def tables(tmp_path, monkeypatch):
    """Writes go to a folder of the test; the presets are those of MustDrop."""
    monkeypatch.setattr(tuned, "tuned_dir", lambda: tmp_path / "tuned")
    task = ["budget=t128", "prefill.alpha=1e-2", "output_root=/somewhere"]
    choices = {"prefill": "dual_attention", "vision": "local_merge"}
    hydra = {"runtime": {"choices": choices}, "overrides": {"task": task}}
    monkeypatch.setattr(tuned.HydraConfig, "get", lambda: OmegaConf.create(hydra))
    return tmp_path / "tuned" / "pocket.yaml"


HELD = Interval(130.1, 127.0, 133.2, "t", 8)
FIELD = "prefill.gamma"


def test_the_written_row_is_what_the_next_run_reads(tables, monkeypatch):
    cfg = configured("budget=t100", "prefill.gamma=1e-3", "prefill.alpha=1e-2")
    done = tuned.Calibrated(SearchResult(2.5e-3, 127.3, 128.0, 9), HELD, 9, 60.0)
    path = tuned.table_path(cfg)
    assert path == tables
    tuned.write_row(path, tuned.calibrated_row(cfg, FIELD, done), "pocket")
    assert (
        path.read_text().startswith("# Tuned values of pocket.")
        and "\n\n- strategy:" in path.read_text()
    )
    (row,) = yaml.safe_load(path.read_text())
    assert row["values"] == {"gamma": 2.5e-3, "alpha": 1e-2}
    made = tuned.made_for(cfg)
    made["stages"]["prefill"]["gamma"] = 2.5e-3
    assert made.items() <= row.items()
    assert (row["strategy"], row["method"], row["benchmark"], row["budget"]) == (
        "dual_attention", "mustdrop", "pocket_vqa", "t100",
    )  # fmt: skip
    assert (row["executed"], row["held_out"], row["n"], row["seed"]) == (
        127.3, [130.1, 127.0, 133.2], 8, 0,
    )  # fmt: skip
    assert row["command"] == "mustdrop calibrate budget=t128 prefill.alpha=1e-2"
    assert {"torch", "transformers", "dtype"} == set(row["versions"])
    assert "/somewhere" not in path.read_text()
    monkeypatch.setattr(presets_tuned, "table_paths", lambda model: [path])
    assert composed("budget=100").prefill.gamma == 2.5e-3
    # a budget out of reach
    done = replace(done, result=OutOfReach(140.25, 100.0), held_out=None)
    tuned.write_row(path, tuned.calibrated_row(cfg, FIELD, done), "pocket")
    (row,) = yaml.safe_load(path.read_text())
    assert row["floor"] == 140.2 and "values" not in row
    # a share is stated in percent
    cfg = configured("budget=640/2880", "prefill.gamma=1e-3", "prefill.alpha=1e-2")
    done = tuned.Calibrated(
        SearchResult(2.5e-3, 0.2223, 2 / 9, 9),
        replace(HELD, value=0.2201, low=0.2, high=0.24),
        9,
        6.0,
    )
    tuned.write_row(path, tuned.calibrated_row(cfg, FIELD, done), "pocket")
    first, second = yaml.safe_load(path.read_text())
    assert first["budget"] == "t100" and second["budget"] == "640/2880"
    assert (second["executed"], second["held_out"]) == (22.23, [22.01, 20.0, 24.0])


def test_too_few_questions_that_differ_have_no_interval(tables):
    cfg = configured("budget=t100", "prefill.gamma=1e-3", "prefill.alpha=1e-2")
    held = Interval(130.1, math.nan, math.nan, "none", 8)
    done = tuned.Calibrated(SearchResult(2.5e-3, 127.3, 128.0, 9), held, 9, 60.0)
    tuned.write_row(tables, tuned.calibrated_row(cfg, FIELD, done), "pocket")
    (row,) = yaml.safe_load(tables.read_text())
    assert row["held_out"] == [130.1, None, None]
    assert "130.1 (too few questions for an interval;" in script.described(cfg, FIELD, done)


def test_a_row_takes_the_place_of_its_earlier_self_and_comments_stay(tables):
    tables.parent.mkdir()
    tables.write_text((conf_dir() / "tuned" / "pocket.yaml").read_text())
    before = yaml.safe_load(tables.read_text())
    comments = [line for line in tables.read_text().splitlines() if line.startswith("#")]
    row = {**before[4], "values": {"gamma": 9e-3, "alpha": 1e-2}}
    tuned.write_row(tables, row, "pocket")
    after = yaml.safe_load(tables.read_text())
    assert after == [*before[:4], row, *before[5:]]
    assert [line for line in tables.read_text().splitlines() if line.startswith("#")] == comments
    tuned.write_row(tables, before[4], "pocket")
    assert tables.read_text() == (conf_dir() / "tuned" / "pocket.yaml").read_text()


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (["method=mustdorp"], "no method 'mustdorp'; did you mean mustdrop?"),
        (["calibration.fild=vision.tau"], "did you mean calibration.field?"),
        (["model.pretrained=/nowhere"], "of conf/tuned was made for the model packaged (w"),
        (["vision.tau=50.0"], "holds values of dual_attention made for something else (stages.vis"),
        (["method=sparsevlm"], "prefill.bias must have a value while prefill.scale is searched"),
        (["calibration.field=key_tokens.mu"], "key_tokens.mu of key_tokens=cls_attention is not r"),
        (["budget=none"], "there is no budget to meet: choose one, as in budget=t128"),
        (["vision=none", "calibration.field=vision.tau"], "vision.tau is no field of a stage in "),
        (["method=fastv", "calibration.field=prefill.keep"], "follows from the budget in closed "),
        (["calibration.field=vision.window"], "vision.window has no range: give calibration.low"),
        (["calibration.n=999999"], "calibration.n and calibration.held_out must be at least 1"),
    ],
)
def test_bad_input_is_one_line(monkeypatch, capsys, asked, expected):
    given = [] if asked[0] in ("method=fastv", "method=sparsevlm") else ["prefill.alpha=1e-2"]
    given += ["budget=t144"] if asked[0] == "method=sparsevlm" else []
    monkeypatch.setattr(sys, "argv", ["calibrate.py", *given, *asked])
    with pytest.raises(SystemExit) as left:
        script.main()
    assert left.value.code == 2
    told = capsys.readouterr().err.strip()
    assert told.startswith("error: ") and expected in told and "\n" not in told


def test_a_row_made_for_something_else_is_replaced_where_that_is_said(monkeypatch):
    hydra = {"runtime": {"choices": {"prefill": "dual_attention"}}}
    monkeypatch.setattr(tuned.HydraConfig, "get", lambda: OmegaConf.create(hydra))
    for asked, free in (
        ((), True), (("vision.tau=50.0",), False), (("vision.tau=50.0", "force=true"), True),
        (("prefill.alpha=0.5",), True), (("model.pretrained=owner/x",), True),
        (("benchmark.task.split=easy_test",), False), (("budget=t144", "vision.tau=1.0"), True),
    ):  # fmt: skip
        cfg = composed("prefill.gamma=1e-3", "prefill.alpha=1e-2", *asked, name="calibrate")
        if free:
            tuned.require_free(cfg, FIELD)
        else:
            with pytest.raises(ValueError, match="holds values of dual_attention made for somethi"):
                tuned.require_free(cfg, FIELD)


def test_rows_of_an_installed_package_are_in_the_way_of_the_same_weights_only(
    monkeypatch, tmp_path
):
    """A new row goes to the user's own table, so the package's rows of other weights stay."""
    hydra = {"runtime": {"choices": {"prefill": "dual_attention"}}}
    monkeypatch.setattr(tuned.HydraConfig, "get", lambda: OmegaConf.create(hydra))
    monkeypatch.setattr(tuned, "tuned_dir", lambda: tmp_path)
    given = ["prefill.gamma=1e-3", "prefill.alpha=1e-2"]
    with pytest.raises(ValueError, match="the installed package has values of dual_attention"):
        tuned.require_free(composed(*given, name="calibrate"), FIELD)
    other = composed(*given, "model.pretrained=owner/x", name="calibrate")
    tuned.require_free(other, FIELD)


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        (("method=mustdrop", "budget=99"), "prefill.gamma"),
        (("method=mustdrop", "budget=99", "prefill.gamma=1e-3"), "prefill.alpha"),
        (("method=mustdrop",), "prefill.gamma"),
        (("method=mustdrop_individual", "budget=99"), "prefill.alpha"),
        (("method=mustdrop_merge", "budget=99"), "vision.tau"),
        (("method=sparsevlm", "budget=99"), "prefill.scale"),
        (("method=mustdrop", "calibration.field=vision.tau"), "vision.tau"),
    ],
)
def test_the_threshold_without_a_value_is_searched(asked, field):
    assert script.searched_field(composed(*asked, name="calibrate")) == field


def test_one_command_meets_several_budgets_and_says_which_failed(monkeypatch, capsys):
    monkeypatch.setattr(script, "failures", [])
    asked = ["method=mustdrop_merge", "calibration.field=vision.tau", "calibration.n=8"]
    sweep = ["-m", *asked, "budget=t192,none,50%", "calibration.write=false", "batch_size=8"]
    monkeypatch.setattr(sys, "argv", ["calibrate.py", *sweep, "calibration.tolerance=0.1"])
    script.main()
    told = capsys.readouterr()
    assert "mustdrop_merge at t192: vision.tau = " in told.out
    assert "mustdrop_merge at s50: vision.tau = " in told.out
    assert len(script.failures) == 1 and "no budget to meet" in told.err
