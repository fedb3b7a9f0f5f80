"""The difficult samples are those that the picture shrunk to the same share gets wrong."""

import numpy as np
import pytest
import results

from analysis.records.cells import load
from analysis.statistics.intervals import paired_interval
from analysis.tables.__main__ import main
from analysis.tables.difficult import difficult_frame

RESIZED = {"image": {"name": "resized", "ratio": 1 / 3}}


@pytest.fixture
def scores():
    names = ("vanilla", "resized", "random", "mustdrop")
    return {name: results.draws(seed, 80, 0.6) for seed, name in enumerate(names)}


@pytest.fixture
def root(tmp_path, scores):
    results.write(tmp_path, "vanilla", "none", 576.0, scores["vanilla"])
    results.write(tmp_path, "vanilla", "t192", 576.0, scores["resized"], key="r", config=RESIZED)
    results.write(tmp_path, "random", scores=scores["random"])
    results.write(tmp_path, "mustdrop", executed=193.0, scores=scores["mustdrop"])
    return tmp_path


def test_scores_and_differences_are_those_of_the_subset(root, scores):
    rows = difficult_frame(load(root)).set_index("method")
    values = {name: np.array(given) for name, given in scores.items()}
    wrong = values["resized"] == 0
    row = rows.loc["mustdrop"]
    assert row["difficult_n"] == wrong.sum() and row["rest_n"] == (~wrong).sum()
    for part, subset in (("difficult", wrong), ("rest", ~wrong)):
        assert row[part] == pytest.approx(values["mustdrop"][subset].mean())
        for reference in ("vanilla", "random"):
            expected = paired_interval(values["mustdrop"][subset], values[reference][subset])
            assert row[f"vs_{reference}_{part}"] == pytest.approx(expected.value)
            assert row[f"vs_{reference}_{part}_low"] == pytest.approx(expected.low)
    whole = paired_interval(values["mustdrop"], values["resized"])
    assert (row["vs_resized"], row["vs_resized_n"]) == (pytest.approx(whole.value), 80)
    assert rows.loc["vanilla", "share"] == pytest.approx(1 / 3), "vanilla has a row per control"


def test_a_worthless_method_gains_on_the_subset_and_not_against_random(root, scores):
    """Regression to the mean: an arm as good as the control, but independent of it."""
    row = difficult_frame(load(root)).set_index("method").loc["random"]
    assert row["difficult_low"] > 0.3, "far above the 0 of the shrunk picture"
    assert row["rest_high"] < 0.9, "far below its 1"
    assert row["vs_resized_low"] < 0 < row["vs_resized_high"]


def test_a_control_at_another_share_is_refused(root, capsys):
    results.write(root, "fastv", "t64", 64.0, results.draws(7, 80))
    results.write(root, "tome", "s22.2", 128.0, results.draws(8, 80))
    assert main(["difficult", "--runs", str(root)]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "left out: fastv t64: its budget is 11.1 % of the tokens" in text
    assert (
        "image=resized ran at 33.3 % only: mustdrop run method=vanilla image=resized budget=t64"
        in text
    )
    assert "budget=22.2% model=pocket benchmark=vqa" in text
    assert "left out: mustdrop" not in text, "its budget is the share"


def test_a_missing_control_is_refused(tmp_path, capsys):
    results.write_three(tmp_path)
    assert main(["difficult", "--runs", str(tmp_path)]) == 1
    assert "no run of vanilla with image=resized in experiment e" in capsys.readouterr().err


def test_scores_beyond_one_are_refused(root, capsys):
    results.write(root, "fastv", scores=[2.0] * 80)
    assert main(["difficult", "--runs", str(root)]) == 1
    assert "the scores must be in [0, 1]" in capsys.readouterr().err


def test_a_run_off_its_budget_is_marked(root, capsys):
    results.write(root, "sparsevlm", executed=180.0, scores=results.draws(9, 80))
    assert main(["difficult", "--runs", str(root), "--format", "md"]) == 0
    text = capsys.readouterr().out
    lines = [line for line in text.splitlines() if "31.2≠" in line]
    assert len(lines) == 1 and "sparsevlm" in lines[0]
    assert "≠: the executed average is more than 1 % off the budget" in text


@pytest.mark.parametrize("form", ["md", "latex", "csv"])
def test_every_form_is_written(root, capsys, form):
    assert main(["difficult", "--runs", str(root), "--format", form]) == 0
    assert "difficult" in capsys.readouterr().out
