"""Claims about a judge's score: on each benchmark, on their mean, and without verdicts."""

import shutil

import numpy as np
import pandas as pd
import pytest
from results import write
from test_claims import claims, right
from test_judging_tables import write_verdicts

from analysis.claims.__main__ import main
from analysis.claims.averages import mean_difference
from analysis.claims.hypotheses import hypotheses
from analysis.claims.judging import judge
from analysis.claims.table import to_csv, to_markdown
from analysis.records.cells import load
from analysis.statistics.difference import difference
from analysis.statistics.pairs import pairs

VIDEOS = ("tgif_qa", "msvd_qa", "msrvtt_qa")
SUPERIOR = """
- {id: better, says: a above b, source: ours, kind: superiority, run: run it,
   score: judge_accuracy, benchmarks: [tgif_qa, msvd_qa, msrvtt_qa], model: video,
   ours: {method: a, budget: 192}, theirs: {method: b, budget: 192}}
"""
AVERAGE = SUPERIOR.replace("model: video", "average: true, model: video")


def judged(root, method, right_of, benchmark="msvd_qa", n=100, model="a", score=None, **more):
    """A run whose judge calls the first answers right; ``right_of`` None: no verdicts."""
    folder = write(
        root / benchmark, method, scores=right(n, n // 2), benchmark=benchmark,
        key=f"{benchmark}-k", **more,
    )  # fmt: skip
    if right_of is not None:
        scores = score or (lambda doc: 4)
        write_verdicts(folder, [(doc < right_of, scores(doc)) for doc in range(n)], model)
    return folder


def verdicts(root, text):
    return judge(claims(root, text), load(root))


def test_a_claim_reads_the_judges_score_and_not_exact_match(tmp_path):
    judged(tmp_path, "a", 80)
    judged(tmp_path, "b", 60)
    (result,) = verdicts(tmp_path, SUPERIOR)
    assert result.verdict == "holds" and result.difference.value == pytest.approx(0.2)
    assert result.scale == 100 and "+20.0 [+" in to_markdown([result])
    plain = SUPERIOR.replace("score: judge_accuracy, ", "")
    assert verdicts(tmp_path, plain)[0].difference.value == 0


def test_a_score_from_0_to_5_is_shown_as_it_is(tmp_path):
    judged(tmp_path, "a", 80, score=lambda doc: 4 + doc % 2)
    judged(tmp_path, "b", 80, score=lambda doc: 3 + doc % 2)
    (result,) = verdicts(tmp_path, SUPERIOR.replace("judge_accuracy", "judge_score"))
    assert result.verdict == "holds" and result.scale == 1
    assert "+1.0 [" in to_markdown([result])


@pytest.mark.parametrize("without", [("a",), ("b",), ("a", "b")])
def test_a_run_without_verdicts_makes_the_claim_unjudged(tmp_path, without):
    folders = [judged(tmp_path, method, None if method in without else 90) for method in ("a", "b")]
    (result,) = verdicts(tmp_path, SUPERIOR)
    assert result.verdict == "unjudged" and result.difference is None and np.isnan(result.p)
    assert result.reason == f"{len(without)} of 2 runs have no verdicts of a judge"
    assert result.command == f"mustdrop judge {folders[0]} {folders[1]} --dry-run"
    text = to_markdown([result])
    assert "| unjudged |" in text and f"- `{result.command}`" in text and "Not measured" not in text
    row = pd.read_csv(pd.io.common.StringIO(to_csv([result]))).iloc[0]
    assert row["verdict"] == "unjudged" and np.isnan(row["difference"])


def test_a_judge_that_gave_no_verdict_at_all_is_none(tmp_path):
    judged(tmp_path, "a", 80)
    write_verdicts(judged(tmp_path, "b", None), ["timeout"] * 100)
    assert verdicts(tmp_path, SUPERIOR)[0].verdict == "unjudged"


def test_answers_without_a_verdict_are_left_out_and_counted(tmp_path):
    judged(tmp_path, "a", 80)
    folder = judged(tmp_path, "b", 60)
    write_verdicts(folder, ["garbage"] * 7 + [(doc < 60, 4) for doc in range(7, 100)])
    (result,) = verdicts(tmp_path, SUPERIOR)
    assert result.difference.pairs.n == 93
    assert result.reason == "7 of 200 answers have no verdict"


def test_runs_of_two_judges_are_not_compared(tmp_path):
    judged(tmp_path, "a", 80, model="a")
    judged(tmp_path, "b", 60, model="other")
    (result,) = verdicts(tmp_path, SUPERIOR)
    assert result.verdict == "not measured"
    assert (
        result.reason == "the runs were judged by a, video_chatgpt/1 and by other, video_chatgpt/1"
    )
    for method, count in (("a", 80), ("b", 60)):
        folder = tmp_path / "msvd_qa/e/pocket" / method / "t192/vqa-msvd_qa-k"
        write_verdicts(folder, [(doc < count, 4) for doc in range(100)], "both")
    (result,) = verdicts(tmp_path, SUPERIOR)
    assert "the score must name one judge" in result.reason
    (result,) = judge(claims(tmp_path, SUPERIOR), load(tmp_path, "judge_accuracy@both"))
    assert result.difference.value == pytest.approx(0.2)


def test_other_benchmarks_are_not_in_the_claim(tmp_path):
    judged(tmp_path, "a", 80, benchmark="gqa")
    judged(tmp_path, "b", 60, benchmark="gqa")
    (result,) = verdicts(tmp_path, SUPERIOR)
    assert result.verdict == "not measured" and result.reason.startswith("no run of a at 192, nor")
    assert result.command == "run it model=video benchmark=tgif_qa,msvd_qa,msrvtt_qa"


def three(root, ours, theirs, sizes=(100, 100, 100)):
    for benchmark, a, b, n in zip(VIDEOS, ours, theirs, sizes, strict=True):
        judged(root, "a", a, benchmark, n)
        judged(root, "b", b, benchmark, n)


def test_a_mean_counts_every_benchmark_once(tmp_path):
    three(tmp_path, (80, 50, 20), (60, 40, 20), (100, 200, 50))
    (result,) = verdicts(tmp_path, AVERAGE)
    assert result.difference.value == pytest.approx((0.2 + 0.05 + 0) / 3)
    assert result.difference.pairs.n == 350 and result.verdict == "holds"
    assert result.setting == ("pocket", ",".join(VIDEOS), "")
    text = to_markdown([result])
    assert "+8.3 [+" in text and "a above b" in text
    each = verdicts(tmp_path, SUPERIOR)
    assert sorted(one.setting[1] for one in each) == sorted(VIDEOS)


@pytest.mark.parametrize("sizes", [(60, 60, 60), (40, 80, 120)])
def test_the_interval_of_a_mean_is_that_of_independent_benchmarks(sizes):
    """Against the normal interval of a mean of independent means."""
    generator = np.random.default_rng(0)
    parts = [difference(pairs(generator.random(n) < 0.7, generator.random(n) < 0.5)) for n in sizes]
    result = mean_difference(parts)
    assert result.pairs.images == result.pairs.n == sum(sizes)
    means = [part.pairs.differences.mean() for part in parts]
    variance = sum(part.pairs.differences.var(ddof=1) / part.pairs.n for part in parts) / 9
    assert result.value == pytest.approx(np.mean(means))
    half = 1.96 * np.sqrt(variance)
    assert result.low == pytest.approx(np.mean(means) - half, abs=0.12 * half)
    assert result.high == pytest.approx(np.mean(means) + half, abs=0.12 * half)
    assert (result.p < 0.05) == (result.low > 0 or result.high < 0)


def test_a_mean_needs_every_benchmark(tmp_path):
    three(tmp_path, (80, 70, 60), (60, 50, 40))
    shutil.rmtree(tmp_path / "tgif_qa")
    (result,) = verdicts(tmp_path, AVERAGE)
    assert (result.verdict, result.reason) == ("not measured", "tgif_qa: no run")
    assert result.command == f"run it model=pocket benchmark={','.join(VIDEOS)}"
    judged(tmp_path, "a", 80, "tgif_qa")
    assert verdicts(tmp_path, AVERAGE)[0].reason == "tgif_qa: no run of b at 192"
    folder = judged(tmp_path, "b", None, "tgif_qa")
    (result,) = verdicts(tmp_path, AVERAGE)
    assert result.verdict == "unjudged" and str(folder) in result.command
    assert result.reason == "tgif_qa: 1 of 2 runs have no verdicts of a judge"


def test_two_experiments_with_other_scores_are_no_mean(tmp_path):
    three(tmp_path, (80, 70, 60), (60, 50, 40))
    for method, count in (("a", 81), ("b", 60)):
        judged(tmp_path / "more", method, count, experiment="more")
    (result,) = verdicts(tmp_path, AVERAGE)
    assert result.verdict == "not measured"
    assert result.reason == "msvd_qa: 2 experiments differ (e, more)"


def test_a_claim_of_parts_is_unjudged_with_them(tmp_path):
    both = (
        SUPERIOR
        + SUPERIOR.replace("id: better", "id: scores").replace("judge_accuracy", "judge_score")
        + "- {id: both, says: both, source: ours, kind: all, run: r, all: [better, scores]}\n"
    )
    judged(tmp_path, "a", 80)
    judged(tmp_path, "b", None)
    found = verdicts(tmp_path, both)
    assert [one.verdict for one in found] == ["unjudged"] * 3
    assert found[2].command == found[0].command
    judged_again = tmp_path / "msvd_qa/e/pocket/b/t192/vqa-msvd_qa-k"
    write_verdicts(judged_again, [(doc < 50, 1) for doc in range(100)])
    assert [one.verdict for one in verdicts(tmp_path, both)] == ["holds"] * 3


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("score: judge_accuracy", "score: exact_match", "score must be one of"),
        ("model: video", "model: video, saves: {cost: seconds, percent: 10}", "score or saves"),
        ("method: b,", "method: b, control: flat,", "answers of a control are not judged"),
        ("benchmarks: [tgif_qa, msvd_qa, msrvtt_qa]", "benchmarks: tgif_qa", "a list of names"),
        ("model: video", "model: video, average: 1", "average must be true or false"),
        (
            "benchmarks: [tgif_qa, msvd_qa, msrvtt_qa]", "benchmarks: [tgif_qa], average: true",
            "average needs two or more benchmarks",
        ),
    ],
)  # fmt: skip
def test_a_claim_about_a_judge_that_is_ill_put_is_refused(tmp_path, old, new, said):
    assert old in SUPERIOR
    with pytest.raises(ValueError, match=said):
        claims(tmp_path, SUPERIOR.replace(old, new))


def test_the_papers_claims_on_video_are_measured_on_table_2(tmp_path, capsys):
    """Runs as experiment=table2 makes them, with made-up verdicts."""
    named = {claim.id for claim in hypotheses() if claim.id.startswith("video-")}
    assert {"video-beats-fastv-on-average@50%", "video-half-is-lossless"} <= named
    for benchmark in VIDEOS:
        judged(tmp_path, "vanilla", 60, benchmark, budget="none", executed=576.0)
        judged(tmp_path, "mustdrop", 60, benchmark, budget="s50", executed=288.0)
        judged(tmp_path, "fastv", 40, benchmark, budget="s50", executed=288.0)
    assert main(["--runs", str(tmp_path), "--format", "csv"]) == 0
    rows = pd.read_csv(pd.io.common.StringIO(capsys.readouterr().out))
    rows = rows[rows["claim"].str.startswith("video-")]
    assert set(rows["verdict"]) <= {"holds", "fails", "not distinguishable"}
    verdict = dict(zip(rows["claim"], rows["verdict"], strict=True))
    assert verdict["video-beats-fastv-on-average@50%"] == "holds"
    assert len(rows) == 3 + 3 + 3 + 1 + 1 + 1
    for folder in tmp_path.rglob("judgements"):
        shutil.rmtree(folder)
    assert main(["--runs", str(tmp_path), "--format", "csv"]) == 0
    rows = pd.read_csv(pd.io.common.StringIO(capsys.readouterr().out))
    assert set(rows[rows["claim"].str.startswith("video-")]["verdict"]) == {"unjudged"}
