"""Claims are judged as they say, and what cannot be judged says why and how to measure it."""

import json
import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from results import draws, floor, write
from rich.console import Console

from analysis.claims.__main__ import main
from analysis.claims.compare import main as compare
from analysis.claims.hypotheses import HYPOTHESES, hypotheses
from analysis.claims.judging import judge
from analysis.claims.table import frame, show, to_csv, to_markdown
from analysis.records.cells import load
from analysis.statistics.mcnemar import mcnemar_p
from analysis.statistics.multiplicity import holm
from mustdrop.budget import Budget
from mustdrop.presets.compose import composed, resolved

ROOT = Path(__file__).parents[2]
SUPERIOR = """
- {id: better, says: a above b, source: ours, kind: superiority, run: run it,
   ours: {method: a, budget: 192}, theirs: {method: b, budget: 192}}
"""


def right(n, count):
    """``count`` of n right, the first ones."""
    return (1.0,) * count + (0.0,) * (n - count)


def claims(tmp_path, text):
    path = tmp_path / "claims.yaml"
    path.write_text(text)
    return hypotheses(path)


def only(tmp_path, text):
    """The one judgement of the claims on the runs under the folder."""
    found = judge(claims(tmp_path, text), load(tmp_path))
    assert len(found) == 1
    return found[0]


def rewrite(folder, change):
    """The samples of a run, each changed."""
    path = folder / "samples.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(change(line)) + "\n" for line in lines))


def beside(folder, schedule, flat, executed=192.0):
    """What ran beside a run, and its record of it."""
    arms = {"schedule_random": schedule, "flat_random": flat}
    rewrite(folder, lambda line: {**line, "controls": {
        kind: [{"seed": 0, "scores": {"exact_match": scores[line["doc_id"]]}}]
        for kind, scores in arms.items()}})  # fmt: skip
    path = folder / "record.json"
    counts = [{"seed": 0, "counts": {"executed_average": executed}}]
    path.write_text(
        json.dumps({**json.loads(path.read_text()), "controls": dict.fromkeys(arms, counts)})
    )


@pytest.mark.parametrize(
    ("ours", "theirs", "verdict"),
    [(80, 60, "holds"), (60, 80, "fails"), (62, 60, "not distinguishable")],
)
def test_superiority_is_judged_by_its_sign_and_p(tmp_path, ours, theirs, verdict):
    write(tmp_path, "a", scores=right(100, ours))
    write(tmp_path, "b", scores=right(100, theirs))
    found = only(tmp_path, SUPERIOR)
    assert found.verdict == verdict and found.difference.value == pytest.approx(
        (ours - theirs) / 100
    )
    assert found.p == pytest.approx(mcnemar_p(max(ours - theirs, 0), max(theirs - ours, 0)))


@pytest.mark.parametrize(
    ("kind", "gain", "verdict"),
    [
        ("non-inferiority", 0, "holds"),
        ("non-inferiority", -12, "holds"),  # significantly worse, and no worse than the margin
        ("non-inferiority", -40, "not distinguishable"),
        ("non-inferiority", -90, "fails"),
        ("non-inferiority", 90, "holds"),
        ("equivalence", 0, "holds"),
        ("equivalence", 34, "not distinguishable"),  # within, and one end of the interval is not
        ("equivalence", -34, "not distinguishable"),
        ("equivalence", 44, "not distinguishable"),
        ("equivalence", 90, "fails"),
        ("equivalence", -90, "fails"),
    ],
)
def test_a_margin_is_judged_by_where_the_whole_interval_lies(tmp_path, kind, gain, verdict):
    n = 1000
    write(tmp_path, "a", scores=right(n, 500 + gain))
    write(tmp_path, "b", scores=right(n, 500))
    found = only(tmp_path, SUPERIOR.replace("superiority", f"{kind}, margin: 4.0"))
    assert found.verdict == verdict
    low, high = 100 * found.difference.low, 100 * found.difference.high
    if kind == "non-inferiority":
        assert verdict == ("holds" if low > -4 else "fails" if high < -4 else "not distinguishable")


def test_verdicts_are_corrected_over_all_that_is_judged_and_by_the_worst_of_a_claims_parts(
    tmp_path,
):
    many = SUPERIOR + "".join(
        f"- {{id: none{i}, says: s, source: ours, kind: superiority, run: r,"
        f" ours: {{method: c{i}, budget: 192}}, theirs: {{method: b, budget: 192}}}}\n"
        for i in range(5)
    )
    write(tmp_path, "b", scores=right(100, 60))
    write(tmp_path, "a", scores=right(100, 66))
    alone = only(tmp_path, SUPERIOR)
    assert alone.verdict == "holds" and alone.adjusted == alone.p < 0.05
    for i in range(5):
        write(tmp_path, f"c{i}", scores=right(100, 60 + i % 2))
    found = judge(claims(tmp_path, many), load(tmp_path))
    assert found[0].p == alone.p and found[0].verdict == "not distinguishable"
    assert [one.adjusted for one in found] == pytest.approx(holm([one.p for one in found]))


def test_unequal_budgets_are_not_compared_unless_the_claim_says_so(tmp_path):
    write(tmp_path, "a", executed=192.0)
    write(tmp_path, "b", executed=196.0)
    found = only(tmp_path, SUPERIOR)
    assert found.verdict == "not measured" and found.difference is None and np.isnan(found.p)
    assert found.reason == "budgets not matched (192.0 against 196.0)"
    assert "method=b budget=192 " in found.command
    assert found.command.endswith("model=pocket benchmark=vqa")
    own = only(tmp_path, SUPERIOR.replace("run it", "run it, budgets: own"))
    assert own.verdict == "not distinguishable" and own.difference.pairs.n == 40


def test_a_wider_match_is_named_beforehand_and_told(tmp_path, capsys):
    write(tmp_path, "a", executed=192.0)
    write(tmp_path, "b", executed=196.0)
    near = judge(claims(tmp_path, SUPERIOR), load(tmp_path), match=0.03)[0]
    assert near.difference is not None and near.reason == "at 192.0 against 196.0 tokens"
    narrow = judge(claims(tmp_path, SUPERIOR), load(tmp_path), match=0.02)[0]
    assert narrow.verdict == "not measured"
    assert main(["--runs", str(tmp_path), "--match", "120"]) == 1
    assert "match must be a percentage in [0, 100), got 120" in capsys.readouterr().err


def test_a_rival_run_at_the_methods_own_average_stands_in(tmp_path):
    write(tmp_path, "a", executed=188.0, scores=right(100, 80))
    write(tmp_path, "b", executed=192.0, scores=right(100, 80))
    write(tmp_path, "b", "t188", executed=188.0, scores=right(100, 50))
    found = only(tmp_path, SUPERIOR)
    assert found.difference.value == pytest.approx(0.3) and found.theirs.executed == 188
    assert found.reason == "b at the budget t188"
    # but where the budget's own run agrees, no other is looked for
    write(tmp_path, "a", executed=191.5, scores=right(100, 80), key="k2", seed=7)
    for path in (tmp_path / "e/pocket/a/t192/vqa-k", tmp_path / "e/pocket/b/t188/vqa-k"):
        (path / "record.json").unlink()
    assert only(tmp_path, SUPERIOR).reason == ""


def test_a_claim_without_runs_says_which_and_the_command_that_measures_it(tmp_path):
    write(tmp_path, "a")
    found = only(tmp_path, SUPERIOR)
    assert found.verdict == "not measured" and found.reason == "no run of b at 192"
    assert found.command == "run it model=pocket benchmark=vqa"
    write(tmp_path, "c")
    (tmp_path / "e/pocket/a/t192/vqa-k/record.json").unlink()
    found = only(tmp_path, SUPERIOR)
    assert found.reason == "no run of a at 192, nor of b at 192"
    assert found.command == "run it model=pocket benchmark=pocket_vqa"


def test_what_the_first_arm_met_says_more_than_an_experiment_where_it_is_not_one_run(tmp_path):
    write(tmp_path / "x", "a")
    floor(tmp_path / "x", "b", "t192", 240.0)
    for place, gamma in enumerate((1e-3, 2e-3)):
        write(
            tmp_path / "y",
            "a",
            experiment="d",
            key=f"k{place}",
            config={"prefill": {"gamma": gamma}},
        )
    assert (
        only(tmp_path, SUPERIOR).reason == "b at 192 cannot reach its budget: at least 240.0 tokens"
    )


@pytest.mark.parametrize(
    ("least", "text"), [(240.0, "240.0 tokens"), ("41.7%", "41.7% of the tokens")]
)
def test_a_budget_out_of_reach_is_its_floor(tmp_path, least, text):
    write(tmp_path, "a")
    floor(tmp_path, "b", "t192", least)
    reason = f"b at 192 cannot reach its budget: at least {text}"
    assert only(tmp_path, SUPERIOR).reason == reason


def test_seeds_are_averaged_sample_by_sample_and_other_runs_are_never_chosen_among(tmp_path):
    scores = [draws(seed) for seed in (1, 2, 3)]
    for seed, each in enumerate(scores):
        write(tmp_path, "b", scores=each, seed=seed, key=f"k{seed}")
    write(tmp_path, "a", scores=draws(0))
    found = only(tmp_path, SUPERIOR)
    assert (found.difference.pairs.theirs == np.mean(scores, axis=0)).all()
    assert found.reason == "1 and 3 seeds averaged" and len(found.theirs.folders) == 3
    write(tmp_path, "b", key="k9", config={"prefill": {"gamma": 0.5}})
    found = only(tmp_path, SUPERIOR)
    assert found.verdict == "not measured" and "4 runs fit b at 192" in found.reason
    assert "prefill" in found.reason
    chosen = SUPERIOR.replace("b, budget: 192", "b, budget: 192, config: {prefill.gamma: 0.5}")
    assert only(tmp_path, chosen).difference is not None
    unset = chosen.replace("0.5}", "null}")
    assert len(only(tmp_path, unset).theirs.cells) == 3


def test_the_same_image_condition_model_and_benchmark_only(tmp_path):
    write(tmp_path, "a", scores=right(40, 30))
    write(tmp_path, "b", scores=right(40, 20), config={"image": {"name": "blank"}})
    found = judge(claims(tmp_path, SUPERIOR), load(tmp_path))
    assert {one.verdict for one in found} == {"not measured"} and len(found) == 2
    write(tmp_path, "b", scores=right(40, 20), key="own")
    found = judge(claims(tmp_path, SUPERIOR), load(tmp_path))
    assert [one.difference is None for one in found] == [False, True]
    assert found[1].setting[2] == "blank" and "image=blank" in found[1].command


def test_a_model_loaded_otherwise_is_another_model(tmp_path):
    write(tmp_path, "a")
    write(tmp_path, "b", config={"model": {"name": "pocket", "dtype": "bfloat16"}})
    found = only(tmp_path, SUPERIOR)
    assert found.verdict == "not measured" and "models differ" in found.reason


def test_runs_of_one_experiment_come_first_and_the_same_scores_are_one_measurement(tmp_path):
    for number, experiment in enumerate(("one", "two", "three")):
        root = tmp_path / experiment
        write(root, "a", scores=right(100, 80), experiment=experiment, key=f"k{number}")
        if experiment != "three":
            write(root, "b", scores=right(100, 60), experiment=experiment, key=f"k{number}")
    found = only(tmp_path, SUPERIOR)
    assert found.where == "one" and found.also == ("two",)
    assert all("/one/" in folder for folder in found.ours.folders + found.theirs.folders)
    for root in ("one", "two"):
        (
            tmp_path / root / "e/pocket/a/t192" / f"vqa-k{int(root == 'two')}" / "record.json"
        ).unlink()
    (tmp_path / "two/e/pocket/b/t192/vqa-k1/record.json").unlink()
    assert only(tmp_path, SUPERIOR).where == "three + one"


def test_questions_about_one_image_are_one_cluster(tmp_path):
    for method, count in (("a", 70), ("b", 60)):
        folder = write(tmp_path, method, scores=right(100, count))
        rewrite(folder, lambda line: {**line, "image": f"picture {line['doc_id'] // 10}"})
    found = only(tmp_path, SUPERIOR)
    assert found.difference.pairs.images == 10 and found.difference.test == "sign flips by image"
    assert found.verdict == "not distinguishable"  # ten answers of one picture: one difference
    assert "100 (10)" in to_markdown([found])


def test_other_documents_are_an_error_not_a_verdict(tmp_path):
    write(tmp_path, "a")
    rewrite(write(tmp_path, "b"), lambda line: {**line, "target": "else"})
    with pytest.raises(ValueError, match="not the same documents"):
        only(tmp_path, SUPERIOR)


def test_selection_and_counts_are_judged_apart_and_together(tmp_path):
    folder = write(tmp_path, "mustdrop", scores=right(2000, 1600))
    shifted = right(2000, 1000)
    names = [f"{name}@192" for name in ("selection", "no-gain-by-counts", "selection-not-counts")]
    wanted = [claim for claim in hypotheses() if claim.id in names]
    beside(folder, schedule=shifted, flat=shifted)
    verdicts = [one.verdict for one in judge(wanted, load(tmp_path))]
    assert verdicts == ["holds", "holds", "holds"]
    beside(folder, schedule=shifted, flat=right(2000, 700))
    found = judge(wanted, load(tmp_path))
    assert [one.verdict for one in found] == ["holds", "fails", "fails"]
    assert found[1].difference.value == pytest.approx(-0.15)  # flat less scheduled
    assert "no-gain-by-counts@192 fails" in found[2].reason and found[2].p == max(
        found[0].p, found[1].p
    )
    beside(folder, schedule=shifted, flat=right(2000, 980))
    verdicts = [one.verdict for one in judge(wanted, load(tmp_path))]
    assert verdicts == ["holds", "not distinguishable", "not distinguishable"]
    beside(folder, schedule=shifted, flat=shifted, executed=150.0)
    assert judge(wanted, load(tmp_path))[0].reason.startswith("budgets not matched")
    write(tmp_path, "mustdrop", key="k", experiment="plain", budget="t128", executed=128.0)
    budget = Budget(tokens=128)
    low = [
        replace(c, ours=replace(c.ours, budget=budget), theirs=replace(c.theirs, budget=budget))
        for c in wanted[:1]
    ]
    assert "without the control schedule" in judge(low, load(tmp_path))[0].reason


def test_a_claim_of_parts_needs_each(tmp_path):
    both = (
        SUPERIOR
        + """
- {id: other, says: a above c, source: ours, kind: superiority, run: r,
   ours: {method: a, budget: 192}, theirs: {method: c, budget: 192}}
- {id: both, says: a above b and c, source: ours, kind: all, run: r, all: [better, other]}
"""
    )
    write(tmp_path, "a", scores=right(100, 80))
    write(tmp_path, "b", scores=right(100, 50))
    found = judge(claims(tmp_path, both), load(tmp_path))
    assert [one.verdict for one in found] == ["holds", "not measured", "not measured"]
    assert np.isnan(found[2].p)
    write(tmp_path, "c", scores=right(100, 78))
    found = judge(claims(tmp_path, both), load(tmp_path))
    assert found[2].verdict == "not distinguishable" and found[2].adjusted == found[1].adjusted


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("kind: superiority", "kind: non-inferiority", "fixed in advance"),
        ("kind: superiority", "kind: non-inferiority, margin: -1.0", "above 0"),
        ("kind: superiority", "kind: superiority, margin: 1.0", "has no margin"),
        ("kind: superiority", "kind: better", "kind must be"),
        ("source: ours, ", "", "lacks"),
        ("theirs: {method: b,", "theirs: {", "lacks its method"),
        ("theirs: {", "theirs: {model: x, ", "an arm has"),
        ("theirs: {", "theirs: {control: x, ", "control must be"),
        ("run: run it", "run: run it, budgets: any", "matched or own"),
        ("run: run it", "run: run it, hope: big", "expected fields"),
        ("run: run it", "run: run it, each: {seed: [1]}", "each must name"),
        ("kind: superiority", "kind: all, all: [x]", "unknown"),
    ],
)  # fmt: skip
def test_a_claim_that_is_ill_put_is_refused(tmp_path, old, new, said):
    assert old in SUPERIOR
    with pytest.raises(ValueError, match=said):
        claims(tmp_path, SUPERIOR.replace(old, new))


EQUAL = """
- {id: equal, says: random equals a, source: ours, kind: equivalence, margin: 5.0, run: run it,
   ours: {method: a, budget: 192, control: schedule,
     config: &middle {prefill.layer: "${at_depth:16,32}"}},
   theirs: {method: a, budget: 192, config: *middle}}
"""


def test_random_from_a_layer_on_is_compared_with_the_run_at_this_layer_of_the_model(tmp_path):
    for layer, given in ((0, right(400, 300)), (6, right(400, 200))):
        config = {"model": {"name": "pocket", "layers": 12}, "prefill": {"layer": layer}}
        folder = write(tmp_path, "a", scores=given, key=f"l{layer}", config=config)
        beside(folder, schedule=right(400, 198), flat=right(400, 100))
    found = only(tmp_path, EQUAL)
    assert found.ours.keys == found.theirs.keys == ("l6",)
    assert found.verdict == "holds" and found.difference.value == pytest.approx(-2 / 400)


def test_random_that_is_far_off_does_not_equal_the_method(tmp_path):
    config = {"model": {"name": "pocket", "layers": 12}, "prefill": {"layer": 6}}
    folder = write(tmp_path, "a", scores=right(400, 300), config=config)
    beside(folder, schedule=right(400, 200), flat=right(400, 100))
    assert only(tmp_path, EQUAL).verdict == "fails"


def test_the_layer_of_a_claim_needs_a_run_at_it(tmp_path):
    config = {"model": {"name": "pocket", "layers": 12}, "prefill": {"layer": 5}}
    beside(write(tmp_path, "a", config=config), right(40, 20), right(40, 20))
    found = only(tmp_path, EQUAL)
    assert found.verdict == "not measured"
    assert "with prefill.layer=${at_depth:16,32}" in found.reason


def test_the_commands_of_the_claims_about_layers_compose(tmp_path):
    for claim in hypotheses():
        if claim.id.startswith("random-equals") and claim.ours.method == "fastv":
            config = resolved(composed(*shlex.split(claim.run)[2:], f"output_root={tmp_path}"))
            keep, layer = config["prefill"]["keep"], config["prefill"]["layer"]
            assert ((layer + 1) * 576 + (11 - layer) * keep) / 12 == pytest.approx(
                claim.ours.budget.tokens, abs=0.5
            )
            wanted = claim.ours.config.get("prefill.layer")
            assert wanted is None or layer == wanted.layer * 12 // 32


def test_the_committed_claims_name_what_exists_and_their_margins():
    methods = {path.stem for path in (ROOT / "conf/method").glob("*.yaml")}
    experiments = {path.stem for path in (ROOT / "conf/experiment").glob("*.yaml")}
    every = hypotheses()
    named = {claim.id.removesuffix("@64") for claim in every}
    assert {"beats-sparsevlm", "key-retaining-helps", "both-filters-beat-either"} <= named
    assert {"decode-dropping-costs-little", "selection-not-counts"} <= named
    for claim in every:
        assert (claim.margin is None) == (claim.kind in ("superiority", "all"))
        for arm in (claim.ours, claim.theirs):
            assert arm is None or arm.method in methods, claim.id
            assert arm is None or arm.budget is None or Budget.parse(arm.budget), claim.id
        asked = dict(word.split("=") for word in shlex.split(claim.run) if "=" in word)
        assert asked.get("experiment", "none") in experiments
        assert set(asked.get("method", "vanilla").split(",")) <= methods
        for budget in asked.get("budget", "none").split(","):
            Budget.parse(budget)
        assert claim.run.startswith("mustdrop ")
    texts = "".join(c.says + c.run for c in every)
    assert "{" not in texts.replace("${at_depth:", ""), "a formula of the presets may stay"
    assert all(entry["source"] for entry in yaml.safe_load(HYPOTHESES.read_text()))


def test_tables_tell_the_same_in_every_form(tmp_path):
    write(tmp_path, "a", scores=right(100, 80))
    write(tmp_path, "b", scores=right(100, 60))
    found = judge(claims(tmp_path, SUPERIOR) + hypotheses(), load(tmp_path))
    told = pd.read_csv(pd.io.common.StringIO(to_csv(found)))
    first = told.iloc[0]
    assert first["difference"] == pytest.approx(20) and first["verdict"] == "holds"
    assert first["runs_theirs"].endswith("e/pocket/b/t192/vqa-k") and len(told) == len(found)
    assert frame(found)["p_holm"].iloc[0] == found[0].adjusted
    assert first["needed_for_a_point"] > 10_000 > 100 * first["detectable"]
    text = to_markdown(found)
    row = next(line for line in text.splitlines() if line.startswith("| a above b"))
    assert "holds" in row and "+20.0 [+1" in row and "192.0 / 192.0" in row and "[1] - [2]" in row
    assert text.count("Measure: `mustdrop") == sum(one.verdict == "not measured" for one in found)
    for width in (80, 200):
        console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
        show(found, console)
        printed = console.export_text()
        assert "+20.0 [+1" in printed and "…" not in printed and "Not measured" in printed


def test_what_is_not_measured_is_counted_and_listed_where_it_is_asked_for(tmp_path, capsys):
    write(tmp_path, "mustdrop", scores=right(100, 80))
    write(tmp_path, "fastv", scores=right(100, 60))
    runs = ["--runs", str(tmp_path)]
    lacking = sum(one.verdict == "not measured" for one in judge(hypotheses(), load(tmp_path)))
    for form in ("text", "md"):
        assert main([*runs, "--format", form]) == 0
        folded = capsys.readouterr().out
        assert f"Not measured: {lacking} claims. --missing lists" in folded
        assert "Measure: `" not in folded and len(folded.splitlines()) < 30
        assert main([*runs, "--format", form, "--missing"]) == 0
        listed = capsys.readouterr().out
        assert (
            " ".join(listed.split()).count("Measure: `mustdrop") == lacking
            and "--missing" not in listed
        )
    full = judge(claims(tmp_path, SUPERIOR), load(tmp_path))
    assert "Not measured" in to_markdown(full, missing=False)
    write(tmp_path, "a", scores=right(100, 80))
    write(tmp_path, "b", scores=right(100, 60))
    full = judge(claims(tmp_path, SUPERIOR), load(tmp_path))
    assert "Not measured" not in to_markdown(full, missing=False) + to_markdown(full)


def test_the_command_prints_and_bad_input_is_told(tmp_path, capsys):
    write(tmp_path, "mustdrop", scores=right(100, 80))
    write(tmp_path, "fastv", scores=right(100, 60))
    root = str(tmp_path)
    for form, head in (("text", "claim"), ("md", "| claim"), ("csv", "claim,says")):
        assert main(["--runs", root, "--format", form]) == 0
        assert head in capsys.readouterr().out
    for more, said in (
        (["--runs", f"{root}/none"], "no results folder"),
        (["--runs", root, "--metric", "bleu"], "no score 'bleu'"),
        (["--runs", root, "--margin", "0"], "above 0"),
        (["--runs", root, "--only", "beats-all"], "expected claims of"),
        (["--runs", root, "--claims", f"{root}/none.yaml"], "no claims"),
    ):
        assert main(more) == 1
        assert said in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert main(["--runs", f"{root}/empty"]) == 1 and "no finished run" in capsys.readouterr().err


def test_looking_at_one_claim_corrects_for_all(tmp_path, capsys):
    for method, count in (("mustdrop", 67), ("fastv", 60), ("cls_topk", 60), ("sparsevlm", 66)):
        write(tmp_path, method, scores=right(100, count))
    seen = []
    for more in ([], ["--only", "beats-fastv"]):
        assert main(["--runs", str(tmp_path), "--format", "csv", *more]) == 0
        told = pd.read_csv(pd.io.common.StringIO(capsys.readouterr().out)).set_index("claim")
        seen.append(told.loc["beats-fastv@192", "p_holm"])
    assert seen[0] == seen[1] > 2 * told.loc["beats-fastv@192", "p"]
    assert set(told.index) == {"beats-fastv@192", "beats-fastv@128", "beats-fastv@64"}


def test_runs_and_logs_compare_by_command(tmp_path, capsys):
    ours = write(tmp_path, "a", scores=right(100, 80))
    theirs = write(tmp_path, "b", executed=196.0, scores=right(100, 60))
    assert compare([str(ours), str(theirs.parent), "--margin", "1"]) == 0
    told = capsys.readouterr().out
    assert "+20.00 points" in told and "budgets not matched" in told and "yes" in told
    log = tmp_path / "x_samples_theirs.jsonl"  # anyone's, about the same documents
    log.write_text("".join(
        json.dumps({"doc_id": doc, "target": f"t{doc}", "exact_match": float(doc < 70)}) + "\n"
        for doc in range(90)))  # fmt: skip
    assert compare([str(ours), str(log)]) == 0
    told = capsys.readouterr().out
    assert "+11.11 points" in told and "of 90, 10 not shared" in told
    log.write_text('{"doc_id": 0, "target": "other", "exact_match": 1}\n')
    assert compare([str(ours), str(log)]) == 1
    assert "the target of 0" in capsys.readouterr().err
    floor(tmp_path, "c", "t64", 70.0)
    assert compare([str(ours), str(tmp_path / "e/pocket/c")]) == 1
    assert "could not reach its budget" in capsys.readouterr().err
