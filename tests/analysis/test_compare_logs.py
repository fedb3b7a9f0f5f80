"""Two logs of lmms-eval are compared by document, whatever their order, line ends and length.

After EleutherAI/lm-evaluation-harness issues 1687 (a document logged once per filter) and 4084
(wrong ids).
"""

import json

import pytest

from analysis.claims.compare import main


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
