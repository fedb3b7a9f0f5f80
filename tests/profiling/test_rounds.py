"""Rounds are paired, kept one by one and continued; summaries follow from them alone."""

from itertools import pairwise

import pytest

from mustdrop.profiling.break_even import break_even, break_even_on_all_axes, verdict
from mustdrop.profiling.measure import Arm
from mustdrop.profiling.rounds import RoundPlan, run_rounds
from mustdrop.profiling.summary import full_depth, median_interval, reached, summarised

ARMS = [Arm("vanilla", None), Arm("method", None), Arm("reference", None, True)]


class CountingBench:
    """A bench whose times are given; it keeps a list of its measurements."""

    batch = 2

    def __init__(self, fails_at=None):
        self.order, self.fails_at, self.tokens = [], fails_at, [9, 5]

    def facts(self, arm):
        return {"vision_tokens": self.tokens, "flops": 8, "kv_bytes": 10}

    def prefill(self, arm):
        if len(self.order) == self.fails_at:
            raise KeyboardInterrupt
        self.order.append(arm.name)
        slow = 1 + len(self.order) // 3  # every round is slower than the one before
        time = slow * {"vanilla": 40.0, "method": 20.0, "reference": 10.0}[arm.name]
        parts = {"encoder": 0.1, "layers": 0.6, "prefill": 0.1, "head": 0.2}
        return {"ttft_ms": time, **{f"part_{k}_ms": v * time for k, v in parts.items()}}

    def answer(self, arm, new_tokens):
        time = 100.0 if arm.name == "vanilla" else 90.0
        return {f"e2e_{new_tokens}_ms": time, f"tpot_{new_tokens}_ms": 2.0}


def measured(rounds, fails_at=None, entry=None):
    entry = {"batch": 2, "images": 1, "vision_tokens": 9} if entry is None else entry
    bench, saved = CountingBench(fails_at), []
    plan = RoundPlan(rounds, 0, [1, 8])
    try:
        run_rounds(bench, ARMS, entry, plan, lambda: saved.append(entry["rounds"]), lambda _: None)
    except KeyboardInterrupt:
        saved.append("stopped")
    return entry, bench, saved


def test_every_round_has_every_arm_once_in_an_order_that_changes():
    entry, bench, saved = measured(6)
    rounds = [bench.order[i : i + 3] for i in range(0, 18, 3)]
    assert all(sorted(names) == sorted(arm.name for arm in ARMS) for names in rounds)
    assert all(first != second for first, second in pairwise(rounds))
    assert {names[0] for names in rounds} == {arm.name for arm in ARMS}
    assert saved == [1, 2, 3, 4, 5, 6]
    assert {len(row) for arm in entry["arms"].values() for row in arm["rounds"].values()} == {6}


def test_a_stopped_profile_goes_on_at_the_round_that_was_cut():
    entry, _, saved = measured(4, fails_at=8)
    assert saved == [1, 2, "stopped"]
    lengths = {len(row) for arm in entry["arms"].values() for row in arm["rounds"].values()}
    assert lengths == {2}  # the cut round left nothing
    entry, bench, saved = measured(4, entry=entry)
    assert saved == [3, 4] and len(bench.order) == 6
    assert {len(row) for arm in entry["arms"].values() for row in arm["rounds"].values()} == {4}


def test_rounds_with_other_token_counts_are_not_mixed():
    entry, _, _ = measured(1)
    entry["arms"]["method"]["facts"]["vision_tokens"] = [9, 4]
    with pytest.raises(ValueError, match=r"method now keeps .* force=true"):
        measured(2, entry=entry)


def test_a_ratio_is_taken_within_a_round():
    entry, _, _ = measured(7)
    summary, fastest = summarised(entry), min(entry["arms"]["vanilla"]["rounds"]["ttft_ms"])
    ratio = summary["method"]["ratios"]["ttft_ms/vanilla"]
    # a round that grew slower changes both arms; their positions in a round differ by little
    assert ratio["n"] == 7 and 0.2 < ratio["low"] <= ratio["median"] <= ratio["high"] < 0.8
    assert summary["method"]["ratios"]["e2e_8_ms/vanilla"]["median"] == pytest.approx(0.9)
    assert summary["vanilla"]["prompts_per_second"]["high"] == pytest.approx(2e3 / fastest)
    assert summary["method"]["tokens_per_second_8"]["median"] == pytest.approx(2 * 8 * 1e3 / 90)
    decisions = summary["method"]["decisions_ms"]["median"]
    assert decisions == pytest.approx(0.1 * summary["method"]["ttft_ms"]["median"])


@pytest.mark.parametrize(("n", "rank"), [(5, None), (6, 0), (8, 0), (9, 1), (12, 2), (20, 5)])
def test_the_interval_of_a_median_lies_between_order_statistics(n, rank):
    """Ranks of the tables of the sign test at 95 %."""
    summary = median_interval([float(value) for value in range(n)])
    expected = (None, None) if rank is None else (rank, n - 1 - rank)
    assert (summary["low"], summary["high"]) == expected and summary["n"] == n


def test_the_decoder_alone_grows_with_the_depth():
    summary = summarised(measured(1)[0])["method"]
    numbers = full_depth(summary, 8)
    total, head = summary["ttft_ms"]["median"], summary["part_head_ms"]["median"]
    assert numbers["ttft_ms"] == pytest.approx(total * (0.3 + 8 * 0.7))
    assert numbers["tpot_8_ms"] == pytest.approx(head + 8 * max(0, 2.0 - head))
    assert numbers["e2e_8_ms"] == pytest.approx(numbers["ttft_ms"] + 7 * numbers["tpot_8_ms"])
    assert full_depth(summary, 1)["ttft_ms"] == total
    assert "full_depth" in summarised(measured(1)[0], 8)["method"]
    assert "full_depth" not in summary


def test_rates_are_operations_and_bytes_over_time():
    entry = measured(1)[0]
    arm, summary = entry["arms"]["method"], summarised(entry)["method"]
    rates = {"flops_per_second": 1e3, "bytes_per_second": 1e5}
    got = reached(arm, summary, rates, decoder_bytes=90)
    seconds = summary["ttft_ms"]["median"] / 1e3
    assert got["flops_per_second"] == pytest.approx(8 / seconds)
    assert got["bytes_per_second"] == pytest.approx((90 + 10) / 2e-3)
    assert got["flops_share"] == pytest.approx(8 / seconds / 1e3)
    assert got["bytes_share"] == pytest.approx(0.5)


def cell(tokens, low, high, batch=1):
    ratio = {"median": (low + high) / 2, "low": low, "high": high, "n": 12}
    ratios = {"ttft_ms/vanilla": ratio, "tpot_32_ms/vanilla": ratio, "e2e_32_ms/reference": ratio}
    return {"vision_tokens": tokens, "batch": batch, "summary": {"method": {"ratios": ratios}}}


def test_break_even_is_the_length_from_which_on_every_interval_is_below_one():
    cells = [
        cell(4608, 0.3, 0.4),
        cell(576, 0.9, 1.1),
        cell(2880, 0.5, 0.9),
        cell(576, 0.2, 0.3, 8),
    ]
    alone, many = break_even(cells)
    assert (alone["batch"], alone["new_tokens"], alone["from"]) == (1, 1, 2880)
    assert [point["verdict"] for point in alone["points"]] == ["unclear", "pays", "pays"]
    assert (many["batch"], many["from"]) == (8, 576)
    (never,) = break_even([cell(576, 0.5, 0.6), cell(2880, 1.2, 1.3)])
    assert never["from"] is None and never["points"][1]["verdict"] == "costs"
    assert verdict({"low": None, "high": None}) == "unclear"


def test_break_even_is_also_found_on_the_batch_and_on_the_answer():
    alone, many = cell(576, 0.9, 1.1), cell(576, 0.2, 0.3, 8)
    many["summary"]["method"]["ratios"]["e2e_32_ms/vanilla"] = {
        "median": 1.2,
        "low": 1.1,
        "high": 1.3,
    }
    rows = {row["axis"]: row for row in break_even_on_all_axes([alone, many])}
    by_batch = break_even([alone, many], axis="batch")
    assert [(row["vision_tokens"], row["new_tokens"], row["from"]) for row in by_batch] == [
        (576, 1, 8), (576, 32, None),
    ]  # fmt: skip
    answer = rows["new_tokens"]
    assert (answer["batch"], answer["from"]) == (8, None)
    assert [point["at"] for point in answer["points"]] == [1, 32]
    assert not [row for row in break_even_on_all_axes([alone]) if row["axis"] != "vision_tokens"]
