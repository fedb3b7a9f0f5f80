"""Two logs of lmms-eval are compared by document, whatever their order, line ends and length.

After EleutherAI/lm-evaluation-harness issues 1687 (a document logged once per filter) and 4084
(wrong ids).
"""

import json

import numpy as np
import pytest
from scipy.special import softmax

from analysis.claims.compare import main
from analysis.records.logs import read_log


def line(doc, score, target="yes"):
    return {
        "doc_id": doc, "target": target, "filtered_resps": ["yes"], "exact_match": score,
    }  # fmt: skip


OURS = [line(doc, float(doc % 3 > 0)) for doc in range(40)]
THEIRS = [line(doc, float(doc % 2)) for doc in range(40)]


@pytest.fixture
def against(tmp_path, capsys):
    """The exit code and all that is printed, of a log with these lines held against ours."""

    def written(name, lines, end="\n"):
        path = tmp_path / f"{name}_samples_gqa.jsonl"
        path.write_bytes("".join(json.dumps(each) + end for each in lines).encode())
        return str(path)

    ours = written("ours", OURS)

    def compared(lines, end="\n"):
        code = main([ours, written("theirs", lines, end)])
        told = capsys.readouterr()
        return code, told.out + told.err

    return compared


def test_order_and_line_ends_of_a_log_change_nothing(against):
    plain = against(THEIRS)
    assert plain[0] == 0
    assert against(THEIRS[::-1]) == plain
    assert against(THEIRS, "\r\n") == plain


def test_a_short_log_says_how_many_are_not_shared(against):
    code, told = against(THEIRS[:10])
    assert code == 0 and "30 not shared" in told


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([*THEIRS, THEIRS[0]], "document 0 occurs twice"),
        (
            [line(0, float("nan")), *THEIRS[1:]],
            "expected a finite exact_match for document 0, got nan",
        ),
        ([line(doc, 1.0, "no") for doc in range(40)], "the target of 0 is 'yes' and 'no'"),
    ],
)
def test_a_log_that_does_not_pair_is_refused_in_one_line(against, lines, said):
    code, told = against(lines)
    assert code == 1 and said in told and told.count("\n") == 1


def test_the_accuracy_of_clustered_logs_counts_images(tmp_path, capsys):
    paths = []
    for name in "ab":
        path = tmp_path / f"{name}_samples_gqa.jsonl"
        lines = [{**line(doc, 1.0), "doc": {"image": f"i{doc // 5}"}} for doc in range(40)]
        path.write_text("".join(json.dumps(each) + "\n" for each in lines))
        paths.append(str(path))
    assert main([*paths, "--cluster", "image"]) == 0
    told = capsys.readouterr().out
    assert "A       100.00 [67.56, 100.00] of 40" in told  # Wilson's of 8 images
    assert "A - B   +0.00 points [-36.94, +36.94]" in told and "p       1.000" in told
    assert main(paths) == 0
    assert "A       100.00 [91.24, 100.00] of 40" in capsys.readouterr().out


def choices_line(doc, losses, target):
    return {
        "doc_id": doc,
        "target": target,
        "filtered_resps": [[x, False] for x in losses],
        "acc": 1,
    }


def test_the_probability_of_the_right_choice_is_a_score(tmp_path):
    drawn = np.random.default_rng(0).uniform(0.1, 4.0, (30, 4))
    path = tmp_path / "1_samples_choices.jsonl"
    lines = [choices_line(doc, losses.tolist(), doc % 4) for doc, losses in enumerate(drawn)]
    path.write_text("".join(json.dumps(entry) + "\n" for entry in lines))
    scores = read_log(path, "choice_probability")["score"].to_numpy()
    expected = softmax(-drawn, axis=1)[range(30), [doc % 4 for doc in range(30)]]
    assert scores == pytest.approx(expected)
    assert main([str(path), str(path), "--metric", "choice_probability"]) == 0


@pytest.mark.parametrize(
    "entry", [line(0, 1.0), choices_line(0, [1.0, 2.0], 2), choices_line(0, [1.0, 2.0], "yes")]
)
def test_a_log_without_choices_has_no_such_probability(tmp_path, entry):
    path = tmp_path / "1_samples_choices.jsonl"
    path.write_text(json.dumps(entry) + "\n")
    with pytest.raises(ValueError, match="needs the loss of each choice and the index"):
        read_log(path, "choice_probability")
