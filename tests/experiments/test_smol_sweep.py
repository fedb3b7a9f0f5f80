"""The sweep on PocketSmol: its cells, its bars, and the thresholds that it needs."""

from functools import lru_cache

import pytest
from results import write

from experiments import calibrate_experiment as script
from experiments.calibrate_experiment import WantedThreshold, exists, thresholds
from experiments.smol import BUDGETS, PAIRS, bars
from experiments.sweeps.cells import plan
from mustdrop.presets.compose import composed
from mustdrop.provenance.weights_mark import weights_mark

N = 200
METHODS = {
    "mustdrop", "mustdrop_official", "fastv", "sparsevlm", "pyramiddrop", "vtw", "tome",
    "prumerge_plus", "visionzip", "vispruner", "divprune", "cls_topk", "random",
}  # fmt: skip


@lru_cache(maxsize=1)
def cells():
    """Overrides of all cells by name; thresholds need not exist."""
    return [dict(text.split("=", 1) for text in cell.overrides) for cell in plan("smol")]


@pytest.mark.slow
def test_fourteen_methods_run_at_three_budgets():
    short = [cell for cell in cells() if "benchmark" not in cell and "image" not in cell]
    for budget in BUDGETS:
        assert {cell["method"] for cell in short if cell["budget"] == budget} >= METHODS
    (vanilla,) = [cell for cell in short if cell["method"] == "vanilla"]
    assert vanilla["benchmark.limit"] == "400"
    cfg = composed("experiment=smol")
    assert (cfg.model.name, cfg.benchmark.name, cfg.benchmark.limit) == (
        "pocket_smol", "pocket_vqa", 200,
    )  # fmt: skip


@pytest.mark.slow
def test_every_threshold_of_the_sweep_is_listed_once():
    listed = thresholds("smol", [])
    short = {(t.strategy, t.overrides[-1]) for t in listed if "pocket_vqa" in t.name}
    calibrated = ("dual_attention", "dual_attention_official", "sparsevlm")
    expected = {(strategy, f"budget={budget}") for strategy in calibrated for budget in BUDGETS}
    ablations = ("dual_attention_no_keys", "global_attention", "individual_attention")
    expected |= {(strategy, "budget=t64") for strategy in (*ablations, "local_merge_alone")}
    assert short == {*expected, ("vtw_kl", "budget=none")}
    assert len({t.name for t in listed}) == len(listed)
    # the three variants of MustDrop on long answers share their thresholds
    assert len(listed) - len(short) == 2


def test_a_threshold_exists_for_its_weights_and_questions_alone():
    model = composed("model=pocket_smol").model
    mark = {"pretrained": "packaged_smol", "weights": weights_mark("packaged_smol")}

    def row(**values):
        return WantedThreshold("sparsevlm", "prefill", ("scale",), (), values or None)

    assert exists(row(model=mark, n=96), model, 96)
    assert not exists(row(model=mark, n=12), model, 96)
    assert not exists(row(model={**mark, "weights": "0" * 12}, n=96), model, 96)
    assert not exists(row(), model, 96)


@pytest.mark.parametrize(("reachable", "tried"), [(0.01, [0.01]), (0.1, [0.01, 0.03, 0.1])])
def test_alpha_rises_until_the_budget_is_in_reach(monkeypatch, reachable, tried):
    given = []

    def calibrate(arguments):
        chosen = dict(text.split("=", 1) for text in arguments)
        given.append(float(chosen["prefill.alpha"]))
        assert chosen["calibration.n"] == "96" and chosen["force"] == "true"

    def written(threshold):
        return {"values": {}} if given[-1] >= reachable else {"floor": 80.0}

    monkeypatch.setattr(script.calibrate, "main", calibrate)
    monkeypatch.setattr(script, "written_row", written)
    script.search(WantedThreshold("a", "prefill", ("gamma", "alpha"), (), None), [], 96)
    assert given == tried


def test_a_wide_range_is_searched_coarsely_first(monkeypatch):
    runs = []
    monkeypatch.setattr(script.calibrate, "main", lambda arguments: runs.append(arguments))
    monkeypatch.setattr(script, "written_row", lambda threshold: {"values": {"scale": 20.0}})
    script.search(WantedThreshold("sparsevlm", "prefill", ("scale", "bias"), (), None), [], 96)
    first, second = (dict(text.split("=", 1) for text in run) for run in runs)
    assert first["calibration.n"] == "12" and second["calibration.n"] == "96"
    low, high = (float(second[f"calibration.{end}"]) for end in ("low", "high"))
    assert low < 20 < high < 2 * low and second["calibration.points"] == "2"


@pytest.mark.parametrize(
    ("fail", "lows"),
    [
        ((), ["1.0", "15.38"]),
        ((2,), ["1.0", "15.38", "6.667"]),
        ((2, 3), ["1.0", "15.38", "6.667", None]),
        ((1,), ["1.0", None]),
    ],
)
def test_a_coarse_value_that_is_far_off_widens_the_search(monkeypatch, fail, lows):
    """A search within a part of the range fails where the budget is met elsewhere."""
    runs = []

    def calibrate(arguments):
        runs.append(dict(text.split("=", 1) for text in arguments))
        if len(runs) in fail:
            raise SystemExit(2)

    monkeypatch.setattr(script.calibrate, "main", calibrate)
    monkeypatch.setattr(script, "written_row", lambda threshold: {"values": {"scale": 20.0}})
    script.search(WantedThreshold("sparsevlm", "prefill", ("scale", "bias"), (), None), [], 96)
    assert [run.get("calibration.low") for run in runs] == lows


def test_ctrl_c_ends_every_search(monkeypatch):
    runs = []

    def stopped(arguments):
        runs.append(arguments)
        raise SystemExit(130)

    monkeypatch.setattr(script.calibrate, "main", stopped)
    with pytest.raises(SystemExit) as end:
        script.search(WantedThreshold("sparsevlm", "prefill", ("scale", "bias"), (), None), [], 96)
    assert end.value.code == 130 and len(runs) == 1


@pytest.mark.parametrize(
    ("fields", "searched"), [(("alpha",), "prefill.alpha"), (("gamma",), "prefill.gamma")]
)
def test_a_single_threshold_is_the_field_that_is_searched(monkeypatch, fields, searched):
    runs = []
    monkeypatch.setattr(script.calibrate, "main", lambda arguments: runs.append(arguments))
    script.search(WantedThreshold("a", "prefill", fields, ("budget=t64",), None), ["threads=1"], 64)
    (arguments,) = runs
    assert {"budget=t64", "threads=1", f"calibration.field={searched}"} <= set(arguments)


def test_an_experiment_must_be_named():
    with pytest.raises(ValueError, match="name the experiment first"):
        script.main(["budget=t64"])


def make(root, **changed):
    """Finished cells with made-up scores; a level by the cell's name."""
    levels = {
        "vanilla": 0.9, "long": 0.9, "blind": 0.25, "half": 0.4, "background": 0.89,
        "mustdrop": 0.8, "cls_topk": 0.8, "fastv": 0.5, **changed,
    }  # fmt: skip

    def cell(name, method, budget="none", benchmark="pocket_vqa", image=None, **stages):
        scores = tuple(float(doc < levels[name] * N) for doc in range(N))
        config = {"image": image, "vision": None, "prefill": None, **stages}
        config["benchmark"] = {"name": benchmark, "limit": N, "metric": "exact_match"}
        write(
            root, method, budget, key=f"{name}{budget}", scores=scores, benchmark=benchmark,
            config=config,
        )  # fmt: skip

    cell("vanilla", "vanilla")
    cell("long", "vanilla", benchmark="pocket_long")
    cell("blind", "vanilla", image={"name": "wrong"})
    cell("half", "random", prefill={"layer": 14, "keep": 58})
    cell("background", "oracle", vision={"mark": "object_patches"})
    for budget in BUDGETS:
        for method in ("mustdrop", "cls_topk", "fastv"):
            cell(method, method, budget)
    return root


def test_every_bar_is_read_from_its_cell(tmp_path):
    made = bars(make(tmp_path))
    assert all(bar.reached for bar in made)
    assert [round(bar.measured.value, 3) for bar in made[:6]] == [0.9, 0.9, 0.9, 0.25, 0.5, 0.01]
    assert len(made) == 6 + len(BUDGETS) * len(PAIRS)


@pytest.mark.parametrize(
    ("changed", "fails"),
    [
        ({"vanilla": 0.84, "background": 0.84}, ["crowded scenes, all tokens"]),
        ({"long": 0.5}, ["long answers, all tokens: items"]),
        ({"long": 0.3}, ["long answers, all tokens: items", "long answers, all tokens: exact"]),
        ({"blind": 0.36}, ["blind: another question's image"]),
        ({"half": 0.8}, ["random, a tenth kept from half the depth on"]),
        ({"background": 0.85}, ["background dropped, objects kept"]),
        ({"cls_topk": 0.5}, [f"cls_topk over fastv, {budget}" for budget in BUDGETS]),
    ],
)
def test_each_bar_can_fail_alone(tmp_path, changed, fails):
    assert [bar.name for bar in bars(make(tmp_path, **changed)) if not bar.reached] == fails


def test_a_cell_that_is_missing_is_named(tmp_path):
    for file in make(tmp_path).rglob("fastv/t64/*/record.json"):
        file.unlink()
    with pytest.raises(ValueError, match="no finished cell: fastv at t64 on pocket_vqa"):
        bars(tmp_path)
