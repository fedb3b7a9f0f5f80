"""Budgets that are shares: published counts, commands, labels, what entered, and saved costs."""

import json

import pytest
from results import draws, write

from analysis.claims.hypotheses import hypotheses
from analysis.claims.judging import judge
from analysis.figures.layers import _budget_label
from analysis.figures.traced import named
from analysis.published.bands import index
from analysis.published.matching import match_published, published_count
from analysis.published.numbers import published
from analysis.records.cells import load
from analysis.report.naming import introduction
from analysis.tables.commands import calibration
from analysis.tables.costs import shapes
from analysis.tables.grid import fill
from analysis.tables.layouts import layouts, typed_budget
from analysis.tables.paper import score_sheet
from analysis.tables.summary import summary_of_cells
from experiments.sweeps.cells import plan
from mustdrop.budget import Budget
from mustdrop.cost import sparsevlm_macs
from mustdrop.presets.compose import composed
from mustdrop.presets.tuned import missing_fields

NEXT = {"model": "llava_next_7b", "experiment": "table1_next", "benchmark": "textvqa"}
SLOTS = {"cells": 2310.0, "off_grid": 41.0, "off_grid_average": 12.3}


def ran(root, method, budget, executed, **more):
    """A run of LLaVA-NeXT on TextVQA."""
    return write(
        root, method, budget, executed, draws(1), key=f"{method}{budget}", **{**NEXT, **more}
    )


@pytest.mark.parametrize(
    ("budget", "count"),
    [
        ("s22.22", 640), ("s22.2", 640), ("s11.11", 320), ("s11.1", 320), ("s5.556", None),
        ("t320", 320), ("s30", None), ("none", None),
    ],
)  # fmt: skip
def test_a_share_is_the_count_that_papers_print(budget, count):
    numbers = index(published().to_dict("records"))
    assert published_count(numbers, "LLaVA-NeXT-7B", budget) == count


def test_a_run_at_a_share_matches_the_row_of_its_count(tmp_path):
    ran(tmp_path, "mustdrop", "s11.11", 256.0)
    ran(tmp_path, "sparsevlm", "s22.22", 512.0)
    ran(tmp_path, "fastv", "s30", 700.0)
    ran(tmp_path, "vanilla", "none", 2351.0)
    found = match_published(summary_of_cells(load(tmp_path))).set_index("method")
    assert found.loc["mustdrop", ["paper", "band_low", "band_high"]].tolist() == [59.9] * 3
    assert found.loc["vanilla", "paper"] == 64.9
    assert "TwigVLM++ Table 1" in " ".join(found.loc["sparsevlm", "band_sources"])
    assert found.loc["fastv", "verdict"] == "not published"


def test_the_table_tells_what_entered_and_what_the_published_count_means(tmp_path):
    ran(tmp_path, "mustdrop", "s11.11", 64.0, slots=SLOTS)
    ran(tmp_path, "random", "s22.22", 128.0, slots=SLOTS)
    part = fill("table1", load(tmp_path))[1]
    assert (part.part.model, part.part.experiment) == ("llava_next_7b", "table1_next")
    made = score_sheet(layouts()["table1"], part)
    lines = {row[:2]: dict(zip(made.heads, row, strict=True)) for row in made.rows}
    assert list(lines) == [
        ("vanilla", "none"), ("random", "s22.22"), ("sparsevlm", "s11.11"), ("mustdrop", "s11.11"),
    ]  # fmt: skip
    line = lines["mustdrop", "s11.11"]
    assert line["textvqa"].splitlines()[1:] == ["64.0 tokens", "12.3 off grid"]
    assert line["textvqa, published"].startswith("59.9 (1/1)")
    notes = " ".join(made.notes)
    assert "2880 tokens for each prompt: the cells of five crops, padding included" in notes
    assert "textvqa: without dropping, 2310.0 vision tokens of a prompt show a cell" in notes


@pytest.mark.parametrize("table", ["table1", "table6"])
def test_missing_cells_of_llava_next_name_commands_that_compose(table):
    (part,) = [part for part in fill(table, []) if part.part.model == "llava_next_7b"]
    for row in part.cells.to_dict("records"):
        if row["benchmark"] not in ("textvqa", "mme"):
            continue
        start = f"mustdrop run -m experiment={part.part.experiment} "
        (cell,) = plan(part.part.experiment, row["command"].removeprefix(start).split())
        if row["method"] in ("mustdrop", "sparsevlm"):
            assert "has no value for llava_next_7b" in cell.error
            assert "mustdrop calibrate model=llava_next_7b" in cell.error
            assert "budget=320/2880 inputs=authors" in cell.error
        else:
            assert cell.config is not None
    for line in calibration("llava_next_7b", [("mustdrop", "s11.11", "textvqa")]):
        config = composed(*line.removeprefix("mustdrop calibrate -m ").split(), name="calibrate")
        assert config.inputs == "authors" and Budget.parse(config.budget).name == "s11.11"
        assert missing_fields(config) == [config.calibration.field]


def test_budgets_are_typed_as_the_presets_have_them():
    typed = ["s22.22", "s11.11", "s5.556", "s22.2", "t64", "none"]
    assert [typed_budget(name) for name in typed] == [
        "640/2880", "320/2880", "160/2880", "22.2%", "t64", "none",
    ]  # fmt: skip


def test_labels_of_shares_are_percent(tmp_path):
    for method, budget in (("fastv", "s22.2"), ("mustdrop", "s11.11"), ("random", "t64")):
        ran(tmp_path, method, budget, 100.0)
    cells = {cell["method"]: cell for cell in load(tmp_path)}
    assert named(cells["fastv"]).endswith("at 22.2 %") and named(cells["random"]).endswith("at 64")
    assert _budget_label("s22.2") == "budget 22.2 %"
    text = introduction(list(cells.values()), 40)
    assert "at budgets of 64 vision tokens and 22.2 %, 11.11 % of the vision tokens" in text


CLAIMS = """
- {id: time, says: a saves, source: ours, kind: non-inferiority, margin: 1.0, budgets: own,
   saves: {cost: seconds, percent: 41.5}, run: run it,
   ours: {method: mustdrop, budget: 320/2880}, theirs: {method: vanilla}}
- {id: cache, says: a saves, source: ours, kind: non-inferiority, margin: 1.0, budgets: own,
   saves: {cost: cached tokens, percent: 88.9}, run: run it,
   ours: {method: mustdrop, budget: 320/2880}, theirs: {method: vanilla}}
- {id: operations, says: a saves, source: ours, kind: non-inferiority, margin: 1.0, budgets: own,
   saves: {cost: operations, percent: 88.5}, run: run it,
   ours: {method: mustdrop, budget: 320/2880}, theirs: {method: vanilla}}
"""
ALONE = {
    "timing": {
        "samples": 40, "overlapped": False, "ranks": 1, "cpu_seconds": 9.9, "waited_seconds": 0.01,
        "load_start": 1.0, "load_end": 1.0, "cpus": 2,
    },
}  # fmt: skip


def costs_of(folder, seconds, tokens):
    """Set the costs of a run's samples."""
    path = folder / "samples.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for number, line in enumerate(lines):
        size = tokens * (1 + number % 3)  # prompts of three sizes
        line |= {"seconds": seconds * (1 + number % 3), "vision_tokens": [size] * 4}
        line |= {"resident_tokens": [size] * 4}
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def judged(tmp_path, seconds, **more):
    path = tmp_path / "claims.yaml"
    path.write_text(CLAIMS)
    for method, budget, spent, tokens in (
        ("vanilla", "none", 1.0, 900), ("mustdrop", "s11.1", seconds, 100),
    ):  # fmt: skip
        costs_of(ran(tmp_path / "runs", method, budget, float(tokens), **ALONE, **more), spent,
                 tokens)  # fmt: skip
    return {entry.claim.id: entry for entry in judge(hypotheses(path), load(tmp_path / "runs"))}


@pytest.mark.parametrize(("seconds", "verdict"), [(0.5, "holds"), (0.7, "fails")])
def test_saved_costs_are_judged_against_the_printed_percent(tmp_path, seconds, verdict):
    found = judged(tmp_path, seconds)
    time, cache, operations = (found[name] for name in ("time", "cache", "operations"))
    assert time.verdict == verdict and time.scale == 100
    assert time.difference.value == pytest.approx(1 - seconds - 0.415)
    assert cache.difference.value == pytest.approx(8 / 9 - 0.889)
    assert cache.verdict == "holds"
    shape, _ = shapes()["llava_next_7b"]
    spent, all_of_them = (
        sum(sparsevlm_macs([n * (1 + doc % 3)] * 4, shape) for doc in range(40)) for n in (100, 900)
    )
    assert operations.difference.value == pytest.approx(1 - spent / all_of_them - 0.885)


def test_seconds_of_a_shared_machine_are_not_judged(tmp_path):
    shared = {"timing": {**ALONE["timing"], "overlapped": True}}
    path = tmp_path / "claims.yaml"
    path.write_text(CLAIMS)
    ran(tmp_path / "runs", "vanilla", "none", 900.0, **ALONE)
    ran(tmp_path / "runs", "mustdrop", "s11.11", 100.0, **shared)
    found = {entry.claim.id: entry for entry in judge(hypotheses(path), load(tmp_path / "runs"))}
    assert found["time"].verdict == "not measured"
    assert found["time"].reason.startswith("the machine may have been shared during ")
    assert found["cache"].verdict != "not measured"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("cost: seconds", "cost: money", "cost must be one of"),
        ("percent: 41.5", "percent: 120", "percent in"),
        ("saves: {cost: seconds, percent: 41.5}", "saves: seconds", "saves must have cost and per"),
        ("budget: 320/2880", "budget: 3200/2880", r"share must be in \[0, 1\], got 1.11"),
    ],
)
def test_a_wrong_saving_is_refused(tmp_path, old, new, message):
    path = tmp_path / "claims.yaml"
    path.write_text(CLAIMS.replace(old, new, 1))
    with pytest.raises(ValueError, match=message):
        hypotheses(path)


def test_the_papers_claims_about_llava_next_are_listed():
    found = {claim.id: claim for claim in hypotheses()}
    assert found["beats-sparsevlm@320/2880"].says.endswith("at 320/2880 of the tokens")
    assert "budget=320/2880" in found["beats-sparsevlm@320/2880"].run
    assert "budget=t64" in found["beats-sparsevlm@64"].run
    for name in ("ninth-costs-five-points", "saves-time", "saves-cache", "saves-operations"):
        assert found[name].ours.budget == Budget(share=320 / 2880)
