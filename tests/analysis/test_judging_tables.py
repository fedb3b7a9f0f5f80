"""Tables of verdicts count the judged alone, and kappa is Cohen's."""

import json
from math import isnan

import numpy as np
import pytest
import results
from statsmodels.stats.inter_rater import cohens_kappa as reference_kappa

from analysis.records.cells import load
from analysis.statistics.kappa import cohens_kappa
from analysis.tables.__main__ import main
from analysis.tables.grid import fill, measured
from analysis.tables.judging import agreement_frame, judging_frame
from analysis.tables.summary import summary
from mustdrop.runs.folder import read_samples
from mustdrop.runs.judgements import identity_digest, sample_digest

PROMPT = "video_chatgpt/1"


def write_verdicts(folder, verdicts, model="a"):
    """A file of verdicts as `mustdrop judge` writes it: (correct, score), or a reason, by doc."""
    identity = {"model": model, "prompt": PROMPT, "options": {}}
    entries = []
    for sample in read_samples(folder):
        verdict = verdicts[sample["doc_id"]]
        named = (
            {"unjudged": verdict, "detail": ""}
            if isinstance(verdict, str)
            else {"correct": bool(verdict[0]), "score": float(verdict[1])}
        )
        entries.append({"doc_id": sample["doc_id"], "digest": sample_digest(sample), **named})
    content = {
        "judge": f"{model}, {PROMPT}", "identity": identity, "updated": "now", "samples": entries,
    }  # fmt: skip
    (folder / "judgements").mkdir(exist_ok=True)
    path = folder / "judgements" / f"{model}-{identity_digest(identity)}.json"
    path.write_text(json.dumps(content))


def drawn(seed, n=40, unjudged=()):
    generator = np.random.default_rng(seed)
    verdicts = [(generator.random() < 0.6, generator.integers(6)) for _ in range(n)]
    return ["timeout" if doc in unjudged else verdict for doc, verdict in enumerate(verdicts)]


@pytest.fixture
def folder(tmp_path):
    results.write(tmp_path, "vanilla", "none", 576.0, results.draws(0))
    return results.write(tmp_path, "random", scores=results.draws(1))


def test_the_table_counts_judged_samples_alone_and_shows_exact_match_on_them(folder, tmp_path):
    verdicts = drawn(3, unjudged=(4, 9, 11))
    verdicts[9] = "garbage"
    write_verdicts(folder, verdicts)
    (row,) = judging_frame(load(tmp_path)).to_dict("records")
    judged = [doc for doc, verdict in enumerate(verdicts) if not isinstance(verdict, str)]
    assert (row["method"], row["judge"]) == ("random", f"a, {PROMPT}")
    assert (row["n"], row["judged"], row["unjudged"]) == (40, 37, 3)
    assert row["reasons"] == "2 timeout, 1 garbage"
    assert row["accuracy"] == pytest.approx(np.mean([verdicts[doc][0] for doc in judged]))
    assert row["score"] == pytest.approx(np.mean([verdicts[doc][1] for doc in judged]))
    exact = {sample["doc_id"]: sample["scores"]["exact_match"] for sample in read_samples(folder)}
    assert row["run_score"] == pytest.approx(np.mean([exact[doc] for doc in judged]))
    for name in ("accuracy", "score", "run_score"):
        assert row[f"{name}_low"] < row[name] < row[f"{name}_high"]


def test_a_run_without_a_single_verdict_is_a_row_without_numbers(folder, tmp_path):
    write_verdicts(folder, ["timeout"] * 40)
    (row,) = judging_frame(load(tmp_path)).to_dict("records")
    assert (row["judged"], row["unjudged"]) == (0, 40)
    assert isnan(row["accuracy"]) and isnan(row["score"])
    assert main(["judging", "--runs", str(tmp_path)]) == 0


@pytest.mark.parametrize("form", ["text", "md", "latex", "csv"])
def test_the_commands_print_both_tables(folder, tmp_path, capsys, form):
    write_verdicts(folder, drawn(3, unjudged=(4,)))
    write_verdicts(folder, drawn(4), model="b")
    for table in ("judging", "agreement"):
        assert main([table, "--runs", str(tmp_path), "--format", form]) == 0
        text = capsys.readouterr().out
        assert "kappa" in text if table == "agreement" else "timeout" in text


def test_without_verdicts_the_tables_name_the_command(folder, tmp_path, capsys):
    for table in ("judging", "agreement"):
        assert main([table, "--runs", str(tmp_path)]) == 1
        assert "mustdrop judge" in capsys.readouterr().err


def test_every_table_can_read_a_judges_score(folder, tmp_path, capsys):
    (vanilla,) = (tmp_path / "e" / "pocket" / "vanilla" / "none").iterdir()
    ours, theirs = drawn(3, unjudged=(4, 9)), drawn(5, unjudged=(9, 30))
    write_verdicts(folder, ours)
    write_verdicts(vanilla, theirs)
    frame = summary(tmp_path, "judge_accuracy").set_index("method")
    row = frame.loc["random"]
    assert (row["n"], row["unjudged"], row["vs_vanilla_n"]) == (38, 2, 37)
    both = [doc for doc in range(40) if doc not in (4, 9, 30)]
    assert row["vs_vanilla"] == pytest.approx(
        np.mean([ours[doc][0] - 1.0 * theirs[doc][0] for doc in both])
    )
    scores = summary(tmp_path, "judge_score").set_index("method")
    assert scores.loc["random", "accuracy"] == pytest.approx(
        np.mean([ours[doc][1] for doc in range(40) if doc not in (4, 9)])
    )
    assert main(["summary", "--runs", str(tmp_path), "--metric", "judge_score"]) == 0
    text = capsys.readouterr().out
    assert "2 samples without a verdict" in text and "over the samples with a verdict" in text


def test_a_low_score_of_a_judge_is_not_shown_in_percent(folder, tmp_path, capsys):
    (vanilla,) = (tmp_path / "e" / "pocket" / "vanilla" / "none").iterdir()
    for run in (folder, vanilla):
        write_verdicts(run, [(True, 1)] * 20 + [(False, 0)] * 20)
    assert main(["summary", "--runs", str(tmp_path), "--metric", "judge_score"]) == 0
    assert "0.5 [" in capsys.readouterr().out


def test_a_table_of_the_paper_takes_a_judges_score_from_the_samples(folder, tmp_path):
    write_verdicts(folder, [(True, 1)] * 10 + [(False, 0)] * 20 + ["timeout"] * 10)
    for metric, value, factor in (("judge_accuracy", 1 / 3, 100.0), ("judge_score", 1 / 3, 1.0)):
        (cell,) = load(folder, metric)
        cell.record.update(benchmark="gqa", available=40, metrics={"exact_match": 0.9})
        name, scale, score = measured(cell)
        assert (name, scale, score.n) == (metric, factor, 30)
        assert score.value == pytest.approx(value)


def test_a_score_of_a_judge_needs_one_judge(folder, tmp_path):
    with pytest.raises(ValueError, match="has no verdicts: mustdrop judge"):
        summary(folder, "judge_accuracy")
    write_verdicts(folder, drawn(3))
    write_verdicts(folder, drawn(4), model="b")
    with pytest.raises(ValueError, match="must name one judge, by @a, video_chatgpt/1 or @b"):
        summary(folder, "judge_accuracy")
    for name in ("b", f"b, {PROMPT}"):
        (row,) = summary(folder, f"judge_accuracy@{name}").to_dict("records")
        assert row["accuracy"] == pytest.approx(np.mean([correct for correct, _ in drawn(4)]))
    write_verdicts(folder, ["timeout"] * 40, model="b")
    with pytest.raises(ValueError, match="gave no verdict"):
        summary(folder, "judge_accuracy@b")


def test_agreement_pairs_judges_with_each_other_and_with_exact_match(folder, tmp_path):
    first, second = drawn(3, unjudged=(4,)), drawn(4, unjudged=(5,))
    write_verdicts(folder, first)
    write_verdicts(folder, second, model="b")
    rows = agreement_frame(load(tmp_path)).to_dict("records")
    pairs = {(row["first"], row["second"]): row for row in rows}
    a, b = f"a, {PROMPT}", f"b, {PROMPT}"
    assert set(pairs) == {("exact_match", a), ("exact_match", b), (a, b)}
    row, both = pairs[a, b], [doc for doc in range(40) if doc not in (4, 5)]
    x, y = ([verdicts[doc][0] for doc in both] for verdicts in (first, second))
    assert row["n"] == 38
    assert row["agreement"] == pytest.approx(np.mean([i == j for i, j in zip(x, y, strict=True)]))
    assert row["kappa"] == pytest.approx(reference(x, y).kappa)


def reference(x, y):
    table = np.zeros((2, 2))
    for i, j in zip(x, y, strict=True):
        table[int(i), int(j)] += 1
    return reference_kappa(table)


def rated(both, first, second, neither):
    """Answers of two raters from the four counts."""
    x = [1] * both + [1] * first + [0] * second + [0] * neither
    y = [1] * both + [0] * first + [1] * second + [0] * neither
    return x, y


def test_kappa_of_an_example_by_hand():
    """20 yes-yes, 5 yes-no, 10 no-yes, 15 no-no: agreement 0.7, by chance 0.5, kappa 0.4."""
    found = cohens_kappa(*rated(20, 5, 10, 15))
    assert found.value == pytest.approx((0.7 - 0.5) / (1 - 0.5))
    assert found.n == 50 and found.method == "t"
    expected = reference(*rated(20, 5, 10, 15))
    assert found.low == pytest.approx(expected.kappa_low, abs=0.01)
    assert found.high == pytest.approx(expected.kappa_upp, abs=0.01)


@pytest.mark.parametrize("seed", range(5))
def test_kappa_and_its_interval_are_the_classical_ones_for_single_questions(seed):
    generator = np.random.default_rng(seed)
    x = generator.random(2000) < generator.uniform(0.2, 0.8)
    y = np.where(generator.random(2000) < 0.7, x, generator.random(2000) < 0.4)
    found, expected = cohens_kappa(x, y), reference(x, y)
    assert found.value == pytest.approx(expected.kappa)
    assert found.high - found.low == pytest.approx(2 * 1.96 * expected.std_kappa, rel=2e-3)


def test_kappa_goes_by_image():
    """Every question three times: the same kappa, and the interval of a third of the samples."""
    x, y = rated(200, 50, 100, 150)
    plain = cohens_kappa(x, y)
    tripled = cohens_kappa(x * 3, y * 3, [*range(500)] * 3)
    assert tripled.value == pytest.approx(plain.value)
    assert tripled.method == "cluster"
    assert tripled.high - tripled.low == pytest.approx(plain.high - plain.low, rel=1e-2)


def test_full_agreement_has_an_interval_with_a_width():
    found = cohens_kappa(*rated(20, 0, 0, 20))
    assert (found.value, found.high, found.method) == (1.0, 1.0, "binomial")
    assert found.low == pytest.approx(1 - (1 - 0.025 ** (1 / 40)) / 0.5)
    two = cohens_kappa(*rated(20, 1, 1, 20))
    assert two.low < two.value < two.high < 1


def test_kappa_without_a_choice_is_unknown():
    for x, y in (([], []), ([1, 1, 1], [1, 1, 1]), ([0], [0])):
        found = cohens_kappa(x, y)
        assert isnan(found.value) and isnan(found.low) and found.method == "none"
    with pytest.raises(ValueError, match="0 or 1"):
        cohens_kappa([0.5, 1], [1, 1])
    assert not isnan(cohens_kappa([1, 1], [0, 0]).value)


def video_run(root, method, budget, scores=None):
    model = {"model": "video_llava_7b", "experiment": "table2", "benchmark": "msvd_qa"}
    executed = 2048.0 if budget == "none" else 1024.0
    scores = results.draws(1) if scores is None else scores
    return results.write(root, method, budget, executed, scores, key=f"{method}{budget}", **model)


def test_table_2_has_accuracy_and_score_of_the_judge(tmp_path, capsys):
    verdicts = drawn(8, unjudged=(0, 5))
    write_verdicts(video_run(tmp_path, "vanilla", "none"), verdicts)
    unread = video_run(tmp_path, "random", "s50")
    accuracy, score = (part.cells for part in fill("table2", load(tmp_path)))
    judged = [verdict for verdict in verdicts if not isinstance(verdict, str)]
    for cells, column, factor, paper in ((accuracy, 0, 100, 70.2), (score, 1, 1, 3.9)):
        cells = cells[cells["benchmark"] == "msvd_qa"].set_index("method")
        row = cells.loc["vanilla"]
        expected = factor * np.mean([float(verdict[column]) for verdict in judged])
        assert (row["state"], row["n"], row["paper"]) == ("measured", 38, paper)
        assert row["ours"] == pytest.approx(expected)
        assert row["verdict"] == "not comparable"  # the paper names no version of its judge
        assert cells.loc["random", "state"] == "unjudged"  # and not exact match in its place
        assert cells.loc["fastv", "state"] == "missing"
    assert main(["table2", "--runs", str(tmp_path)]) == 0
    shown = capsys.readouterr().out.replace("\n", "")
    assert shown.count("not judged: a judge has to read") == 2 and str(unread) in shown
    write_verdicts(unread, drawn(9), model="b")
    write_verdicts(unread, drawn(9), model="a")
    assert main(["table2", "--runs", str(tmp_path)]) == 1
    assert "the score must name one judge" in capsys.readouterr().err
    named = ["table2", "--runs", str(tmp_path), "--metric", "judge_accuracy@a"]
    assert main(named) == 0 and "judge score" in capsys.readouterr().out
