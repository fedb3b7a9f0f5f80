"""Claims about time are judged by the whole interval, and say where nothing ran on a GPU."""

import json

import pytest
from scipy.stats import binom
from test_efficiency import profile

from analysis.claims.__main__ import main
from analysis.claims.timing import NO_GPU, TimeClaim, judge_times, time_claims, time_sheet
from analysis.statistics.medians import median_interval
from mustdrop.profiling import summary

SAVES = TimeClaim(
    "saves", "It saves time", "paper", "mustdrop", "vanilla", "slower", 41.5, 0.25, "x"
)
SLOWER = TimeClaim("slower", "It is slow", "paper", "mustdrop", "fastv", "faster", 15.6, 0.25, "x")


def timed(method, ratios, **changes):
    """A profile of one batch whose method takes these times of vanilla's."""
    made = {**profile(method), **changes}
    made["cells"] = made["cells"][:1]
    arms = made["cells"][0]["arms"]
    arms["vanilla"]["rounds"] = {"ttft_ms": [40.0] * len(ratios)}
    arms["method"]["rounds"] = {"ttft_ms": [40.0 * ratio for ratio in ratios]}
    return made


def only(profiles, claim):
    (row,) = judge_times(profiles, [claim]).to_dict("records")
    return row


@pytest.mark.parametrize(
    ("ratios", "verdict"),
    [
        ([0.5] * 6, "holds"),
        ([0.5] * 3 + [0.6] * 3, "not distinguishable"),
        ([0.6] * 6, "fails"),
        ([0.5] * 5, "not distinguishable"),  # too few rounds for an interval
    ],
)
def test_the_whole_interval_must_reach_the_claimed_percentage(ratios, verdict):
    row = only([timed("mustdrop", ratios)], SAVES)
    assert row["verdict"] == verdict and row["rounds"] == 6
    assert row["percent"] == pytest.approx(100 * (1 - sorted(ratios)[len(ratios) // 2]), abs=5.1)


def test_two_methods_are_compared_through_vanilla():
    ours, theirs = timed("mustdrop", [0.5] * 8), timed("fastv", [0.6] * 8)
    row = only([ours, theirs], SLOWER)
    assert row["percent"] == pytest.approx(20) and row["verdict"] == "holds"
    assert row["low"] == pytest.approx(20) and row["high"] == pytest.approx(20)
    wide = timed("fastv", [0.5, *[0.6] * 6, 0.7])
    row = only([timed("mustdrop", [0.48, *[0.5] * 6, 0.52]), wide], SLOWER)
    # eight values at 97.5 %: the interval ends at the extremes
    assert (row["low"], row["high"]) == pytest.approx(
        (100 * (0.5 / 0.52 - 1), 100 * (0.7 / 0.48 - 1))
    )
    assert row["verdict"] == "not distinguishable"
    six = only([timed("mustdrop", [0.5] * 6), timed("fastv", [0.6] * 6)], SLOWER)
    assert six["verdict"] == "not distinguishable"  # 97.5 % needs seven rounds


def test_other_settings_and_other_shares_are_not_compared():
    ours, theirs = timed("mustdrop", [0.5] * 8), timed("fastv", [0.6] * 8)
    other = {**theirs, "settings": {**theirs["settings"], "threads": 2}}
    assert only([ours, other], SLOWER)["verdict"] == "not measured"
    elsewhere = {**theirs, "hardware": {"name": "card B"}}
    assert only([ours, elsewhere], SLOWER)["verdict"] == "not measured"
    row = only([ours], SLOWER)
    assert (row["verdict"], row["note"]) == ("not measured", "x")
    theirs["cells"][0]["arms"]["method"]["facts"]["executed_average"] = 576 * 0.3
    assert only([ours, theirs], SLOWER)["verdict"] == "not measured"


def test_a_record_of_a_cpu_says_so():
    assert only([timed("mustdrop", [0.5] * 6)], SAVES)["note"] == NO_GPU
    card = timed("mustdrop", [0.5] * 6, hardware={"name": "card A", "cuda": "12.8"})
    assert only([card], SAVES)["note"] == ""


def test_the_papers_claims_are_in_the_table_and_in_the_files(tmp_path, capsys):
    folder = tmp_path / "run"
    folder.mkdir()
    made = timed("mustdrop", [0.7] * 6)
    made["cells"][0]["arms"]["method"]["facts"]["executed_average"] = 64.2
    (folder / "efficiency.json").write_text(json.dumps(made))
    assert [claim.percent for claim in time_claims()] == [41.5, 15.6]
    assert main(["--time", "--runs", str(tmp_path)]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "fails" in text and "30.0 [30.0, 30.0] %" in text
    assert main(["--time", "--runs", str(tmp_path), "--format", "md"]) == 0
    text = capsys.readouterr().out
    assert NO_GPU in text and "mustdrop profile -m method=mustdrop,sparsevlm" in text
    assert main(["--time", "--runs", str(tmp_path), "--format", "csv"]) == 0
    assert capsys.readouterr().out.startswith("claim,says,claimed,verdict,percent,low,high")
    assert main(["--time", "--runs", str(tmp_path / "nowhere")]) == 1
    assert time_sheet(judge_times([made])).rows[1][1] == "not measured"


def test_a_claim_with_other_fields_is_refused(tmp_path):
    path = tmp_path / "claims.yaml"
    path.write_text("- {id: a, says: b}\n")
    with pytest.raises(ValueError, match=r"claim 'a': expected the fields .* got \['id', 'says'\]"):
        time_claims(path)


@pytest.mark.parametrize("n", range(1, 30))
def test_the_interval_of_a_median_is_that_of_the_profiles(n):
    values = [float(value) for value in range(n)]
    middle, low, high = median_interval(values)
    expected = summary.median_interval(values)
    assert middle == expected["median"]
    assert (low, high) == (expected["low"], expected["high"]) or (low != low and n < 6)
    if n >= 7:
        _, low, _ = median_interval(values, 0.975)
        assert 2 * binom.cdf(low, n, 0.5) <= 0.025 < 2 * binom.cdf(low + 1, n, 0.5)
