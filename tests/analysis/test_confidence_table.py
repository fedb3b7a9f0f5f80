"""The table of confidences rates answers by their probability, and compares a graded score."""

from math import isnan, log

import numpy as np
import pandas as pd
import pytest
import results

from analysis.records.cells import load
from analysis.statistics.intervals import paired_interval
from analysis.tables.__main__ import main
from analysis.tables.chair import ABSENT, NAMED, chair_frame
from analysis.tables.confidence import confidence_frame, graded
from analysis.tables.pope import METRIC, pope_frame

N = 60


def answered(seed, sure=0.8, targets=("yes", "no")):
    """Function to the samples' entries, their scores, and the probability of each right answer."""
    generator = np.random.default_rng(seed)
    right = generator.random(N) < 0.7
    confidence = generator.uniform(sure - 0.2, sure + 0.2, N)

    def changed(doc):
        target = targets[doc % 2]
        answer = target if right[doc] else targets[1 - doc % 2]
        logprobs = [log(confidence[doc]) / 2] * 2
        return {"target": target, "answer": answer, "logprobs": logprobs}

    return changed, tuple(map(float, right)), np.where(right, confidence, 1 - confidence)


@pytest.fixture
def two(tmp_path):
    """Vanilla and random with probabilities; the probabilities of the right answers."""
    probabilities = {}
    for seed, (method, budget, executed) in enumerate(
        [("vanilla", "none", 576.0), ("random", "t192", 192.0)]
    ):
        changed, scores, probabilities[method] = answered(seed)
        results.write(tmp_path, method, budget, executed, scores, changed=changed)
    return tmp_path, probabilities


def test_the_graded_score_is_the_probability_of_the_right_answer(two):
    root, probabilities = two
    for cell in load(root):
        assert graded(cell.samples).to_numpy() == pytest.approx(probabilities[cell["method"]])
    rows = confidence_frame(load(root)).set_index("method")
    assert rows.loc["random", "graded"] == pytest.approx(probabilities["random"].mean())
    expected = paired_interval(probabilities["random"], probabilities["vanilla"])
    row = rows.loc["random"]
    assert row["vs_vanilla_graded"] == pytest.approx(expected.value)
    assert row["vs_vanilla_graded_low"] == pytest.approx(expected.low)
    assert row["vs_vanilla_accuracy_n"] == row["graded_n"] == N
    assert isnan(rows.loc["vanilla", "vs_vanilla_graded"])
    assert 0 < row["ece_low"] < row["ece"] < row["ece_high"] and row["ece_chance"] > 0


def test_other_answers_to_yes_no_questions_are_worth_nothing_and_other_questions_are_left_out():
    samples = pd.DataFrame(
        {
            "target": ["yes", "Yes", "no", "red"], "answer": ["maybe", "yes ", "yes", "red"],
            "score": [0.0, 1.0, 0.0, 1.0], "confidence": [0.9, 0.6, 0.7, 0.9],
        }
    )  # fmt: skip
    values = graded(samples)
    assert values[:3].tolist() == pytest.approx([0.0, 0.6, 0.3]) and isnan(values[3])


def test_runs_without_probabilities_are_named(two, capsys):
    root, _ = two
    results.write(root, "fastv", scores=results.draws(3, N))
    changed, scores, _ = answered(4)
    results.write(root, "tome", scores=[score / 2 for score in scores], changed=changed)
    assert main(["confidence", "--runs", str(root)]) == 0
    text = capsys.readouterr().out
    assert "left out: fastv t192 has no probabilities of its answers" in text
    assert "left out: tome t192 has scores other than 0 and 1" in text
    assert "graded n" in text


def test_without_any_the_command_says_so(tmp_path, capsys):
    results.write(tmp_path, "fastv")
    assert main(["confidence", "--runs", str(tmp_path)]) == 1
    assert "no run can be rated by confidence" in capsys.readouterr().err


def test_without_yes_no_questions_there_is_no_graded_score(tmp_path, capsys):
    changed, scores, _ = answered(0, targets=("red", "blue"))
    results.write(tmp_path, "vanilla", "none", 576.0, scores, changed=changed)
    for form in ("text", "md", "latex", "csv"):
        assert main(["confidence", "--runs", str(tmp_path), "--format", form]) == 0
        assert "Δ graded" not in capsys.readouterr().out


POPE = (("random", "yes", "yes"), ("random", "no", "yes"), ("random", "no", "no"),
        ("popular", "yes", "no"), ("popular", "yes", "yes"), ("popular", "no", "it is"),
        ("adversarial", "yes", "Yes"), ("adversarial", "no", "yes"))  # fmt: skip


def pope_run(root, repeats=1, **more):
    rows = POPE * repeats

    def changed(doc):
        kind, target, answer = rows[doc]
        right = float(answer.lower() == target)
        return {"type": kind, "target": target, "answer": answer, "scores": {METRIC: right}}

    return results.write(
        root, "vanilla", "none", 576.0, [0.0] * len(rows), metric=METRIC, changed=changed, **more
    )


def naive_pope(split):
    """Accuracy, precision, recall and F1 as lmms-eval counts them: of exact answers yes and no."""
    asked = [(t, a.lower()) for kind, t, a in POPE if split in (kind, "all")]
    hits, false, missed = (
        asked.count(pair) for pair in (("yes", "yes"), ("no", "yes"), ("yes", "no"))
    )
    precision, recall = hits / (hits + false), hits / (hits + missed)
    return {
        "accuracy": sum(t == a for t, a in asked) / len(asked), "precision": precision,
        "recall": recall, "f1": 2 * precision * recall / (precision + recall),
    }  # fmt: skip


def test_pope_is_shown_for_each_split(tmp_path):
    pope_run(tmp_path, 10)
    rows = pope_frame(load(tmp_path)).set_index("split")
    assert [*rows.index] == ["random", "popular", "adversarial", "mean of splits", "all"]
    for split in ("random", "popular", "adversarial", "all"):
        for name, value in naive_pope(split).items():
            assert rows.loc[split, name] == pytest.approx(value), (split, name)
    three = rows.loc[["random", "popular", "adversarial"]]
    assert rows.loc["mean of splits", "f1"] == pytest.approx(three["f1"].mean())
    assert rows.loc["popular", "neither"] == pytest.approx(1 / 3)
    assert rows.loc["all", "f1_low"] < rows.loc["all", "f1"] < rows.loc["all", "f1_high"]


def test_pope_without_splits_says_how_to_get_them(tmp_path, capsys):
    folder = pope_run(tmp_path)
    path = folder / "samples.jsonl"
    text = path.read_text()
    for kind in ("random", "popular", "adversarial"):
        text = text.replace(f'"type": "{kind}"', '"type": null')
    path.write_text(text)
    assert main(["pope", "--runs", str(tmp_path)]) == 0
    assert "do not record the split" in capsys.readouterr().out
    results.write(tmp_path / "other", "vanilla", "none", 576.0)
    assert main(["pope", "--runs", str(tmp_path / "other")]) == 1
    assert "expected the score pope_accuracy" in capsys.readouterr().err


def test_chair_counts_absent_objects_by_object_and_by_answer(tmp_path, capsys):
    generator = np.random.default_rng(0)
    counts = {}
    for method, budget, executed in (("vanilla", "none", 576.0), ("random", "t192", 192.0)):
        named = generator.integers(0, 6, N)
        absent = generator.binomial(named, 0.2)
        counts[method] = named, absent

        def changed(doc, named=named, absent=absent):
            scores = {"exact_match": 0.0, NAMED: float(named[doc]), ABSENT: float(absent[doc])}
            return {"scores": scores}

        results.write(
            tmp_path, method, budget, executed, [0.0] * N, changed=changed,
            metrics={NAMED: 1.0, ABSENT: 1.0},
        )  # fmt: skip
    rows = chair_frame(load(tmp_path)).set_index("method")
    for method, (named, absent) in counts.items():
        assert rows.loc[method, "chair_i"] == pytest.approx(absent.sum() / named.sum())
        assert rows.loc[method, "chair_s"] == pytest.approx((absent > 0).mean())
        assert rows.loc[method, "named"] == pytest.approx(named.mean())
    gap = (counts["random"][1] > 0).mean() - (counts["vanilla"][1] > 0).mean()
    assert rows.loc["random", "vs_vanilla"] == pytest.approx(gap)
    assert main(["chair", "--runs", str(tmp_path)]) == 0
    assert "CHAIR_i" in capsys.readouterr().out
    results.write(tmp_path / "other", "vanilla", "none", 576.0)
    assert main(["chair", "--runs", str(tmp_path / "other")]) == 1
    assert "no run has annotated objects" in capsys.readouterr().err
