"""Orders of methods side by side: shares, ranks and their correlation, on made-up records."""

import math

import numpy as np
import pandas as pd
import pytest

from analysis.published.numbers import published
from analysis.tables.ranks import (
    agreement,
    measured_shares,
    published_shares,
    ranks_markdown,
    side_by_side,
)


def summary(**accuracies):
    """Vanilla answers 0.9 of all questions, and 0.8 of those that the methods answered."""
    rows = [("vanilla", "none", None, None, 0.9, "pocket_vqa", math.nan)]
    rows += [
        (method, "t64", None, None, value, "pocket_vqa", value - 0.8)
        for method, value in accuracies.items()
    ]
    frame = pd.DataFrame(
        rows,
        columns=["method", "budget", "image", "variant", "accuracy", "benchmark", "vs_vanilla"],
    )
    return frame.assign(floor=math.nan)


def test_a_measured_share_is_one_of_vanilla_on_the_same_questions_and_controls_are_left_out():
    rows = summary(fastv=0.4, random=0.6)
    more = pd.DataFrame(
        [
            ("vanilla", "none", "wrong", None, 0.2, "pocket_vqa", 0.1, math.nan),
            ("fastv", "t64", None, "seed=1", 0.9, "pocket_vqa", 0.1, math.nan),
            ("fastv", "t64", None, None, 0.9, "pocket_long", 0.1, math.nan),
            ("tome", "t64", None, None, math.nan, "pocket_vqa", math.nan, 72.0),
            ("fastv", "t128", None, None, 0.9, "pocket_vqa", 0.1, math.nan),
        ],
        columns=[*rows.columns],
    )
    shares = measured_shares(pd.concat([rows, more]), "t64")
    assert shares.to_dict() == pytest.approx({"fastv": 50.0, "random": 75.0})
    with pytest.raises(ValueError, match="need one run of vanilla on pocket_vqa, got 0"):
        measured_shares(more.iloc[1:], "t64")


def test_a_published_share_is_the_median_over_sources_of_the_mean_over_benchmarks():
    def rows(method, source, tokens, *values):
        names = (("GQA", "accuracy"), ("MME", "score_sum"), ("TextVQA", "accuracy"))
        return [
            (method, "LLaVA-1.5-7B", tokens, benchmark, metric, value, source)
            for (benchmark, metric), value in zip(names, values, strict=False)
        ]

    numbers = pd.DataFrame(
        [
            *rows("vanilla", "a", 576, 60, 1800, 50),
            *rows("FastV", "a", 64, 30, 900, 25),
            *rows("FastV", "b", 64, 60, 1800, 50),
            *rows("FastV", "c", 64, 54, 1620, 45),
            *rows("FastV", "d", 64, 6),  # too few benchmarks
            *rows("FastV", "a", 128, 60, 1800, 50),
        ],
        columns=["method", "model", "tokens", "benchmark", "metric", "value", "source"],
    )
    shares = published_shares(numbers, {"fastv": "FastV", "vtw": "VTW"}, 64)
    assert shares.loc["fastv"].tolist() == pytest.approx([90, 50, 100, 3])
    assert list(shares.index) == ["fastv"]


def test_published_numbers_cover_the_main_methods():
    names = {"mustdrop": "MustDrop", "fastv": "FastV", "visionzip": "VisionZip"}
    for tokens in (192, 128, 64):
        shares = published_shares(published(), names, tokens)
        assert list(shares.index) == list(names)
        assert shares["median"].between(60, 101).all() and (shares.sources >= 1).all()


def test_the_correlation_is_that_of_the_ranks():
    first = pd.Series(dict(zip("abcdef", (1.0, 5.0, 2.0, 9.0, 4.0, 8.0), strict=True)))
    same, turned = agreement(first, first.rank()), agreement(first, -first)
    assert (same.rho, turned.rho) == pytest.approx((1, -1)) and same.n == 6
    assert same.p == pytest.approx(2 / math.factorial(6))  # one order of 720, at either end
    second = pd.Series(dict(zip("fabcdx", (3.0, 1.0, 2.0, 7.0, 5.0, 0.0), strict=True)))
    shared = list("abcdf")
    ranks = [series[shared].rank().to_numpy() for series in (first, second)]
    assert agreement(first, second).rho == pytest.approx(np.corrcoef(*ranks)[0, 1])
    few = agreement(first[["a", "b"]], second)
    assert math.isnan(few.rho) and few.n == 2


def test_ranks_count_the_methods_that_all_models_have():
    columns = {
        "one": pd.Series({"vanilla": 100.0, "a": 90.0, "b": 80.0, "c": 70.0, "d": 60.0}),
        "two": pd.Series({"a": 50.0, "c": 70.0, "d": 60.0, "alone": 1.0}),
        "three": pd.Series({"a": 5.0, "b": 6.0, "c": 7.0, "d": 9.0}),
    }
    frame = side_by_side(columns)
    assert list(frame.index) == ["a", "b", "c", "d"]
    assert frame["one rank"].to_dict() == pytest.approx(
        {"a": 1, "b": math.nan, "c": 2, "d": 3}, nan_ok=True
    )
    assert frame["two rank"].to_dict() == pytest.approx(
        {"a": 3, "b": math.nan, "c": 1, "d": 2}, nan_ok=True
    )
    text = ranks_markdown(columns)
    assert "| b | 80.0 | – | 6.0 |" in text and "| a | 90.0 (1) | 50.0 (3) | 5.0 (3) |" in text
    assert "one and two: Spearman's rho -0.50" in text and "3 methods" in text
