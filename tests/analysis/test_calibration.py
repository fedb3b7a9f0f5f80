"""Calibration is what its formulas say, and its interval covers the truth as often as stated."""

import numpy as np
import pytest

from analysis.statistics.bootstrap import by_image, resampled
from analysis.statistics.calibration import BINS, calibration
from analysis.statistics.intervals import paired_interval
from analysis.statistics.ratios import ratio_interval


def naive_error(confidence, right):
    """Sum over bins of share of samples x |mean confidence - share right|."""
    total = 0.0
    for number in range(BINS):
        top = number == BINS - 1
        inside = [
            (c, y)
            for c, y in zip(confidence, right, strict=True)
            if number / BINS <= c < (number + 1) / BINS or (top and c == 1)
        ]
        if inside:
            gap = abs(np.mean([c for c, _ in inside]) - np.mean([y for _, y in inside]))
            total += len(inside) / len(confidence) * gap
    return total


def drawn(n, truth, seed):
    generator = np.random.default_rng(seed)
    confidence = generator.beta(3, 1, n)
    return confidence, (generator.random(n) < truth(confidence)).astype(float)


def test_both_numbers_are_those_of_their_formulas():
    confidence, right = drawn(300, lambda c: 0.8 * c, 0)
    confidence[:2] = 1.0, 0.0
    rated = calibration(confidence, right)
    assert rated.error.value == pytest.approx(naive_error(confidence, right))
    assert rated.brier.value == pytest.approx(((confidence - right) ** 2).mean())
    for interval in (rated.error, rated.brier):
        assert interval.low < interval.value < interval.high and interval.method == "bootstrap"


def test_the_error_by_chance_is_that_of_calibrated_confidences():
    confidence, _ = drawn(300, lambda c: c, 0)
    generator = np.random.default_rng(1)
    errors = [naive_error(confidence, generator.random(300) < confidence) for _ in range(200)]
    chance = calibration(confidence, np.ones(300)).chance
    assert chance == pytest.approx(np.mean(errors), rel=0.05)


@pytest.mark.slow
def test_the_interval_of_the_error_covers_an_error_of_a_fifth_of_the_confidence():
    confidence, _ = drawn(200_000, lambda c: c, 0)
    truth, covered = naive_error(confidence, 0.8 * confidence), 0
    for seed in range(100):
        error = calibration(*drawn(400, lambda c: 0.8 * c, seed)).error
        covered += error.low <= truth <= error.high
    assert covered >= 85


def test_intervals_go_by_image():
    confidence, right = drawn(100, lambda c: 0.7 * c, 2)
    single = calibration(confidence, right)
    images = np.repeat(np.arange(100), 4)
    repeated = calibration(np.repeat(confidence, 4), np.repeat(right, 4), images)
    assert repeated.error.value == pytest.approx(single.error.value)
    for name in ("error", "brier"):
        ours, theirs = getattr(single, name), getattr(repeated, name)
        assert theirs.high - theirs.low == pytest.approx(ours.high - ours.low, rel=0.1)


def test_what_is_no_confidence_is_refused():
    for confidence, right in (([0.5, 1.2], [1, 0]), ([0.5, 0.5], [1, 0.3])):
        with pytest.raises(ValueError, match=r"confidences must be in \[0, 1\]"):
            calibration(confidence, right)
    with pytest.raises(ValueError, match="two or more samples, got 1"):
        calibration([0.5], [1])


def test_a_ratio_has_an_interval_if_enough_images_differ():
    generator = np.random.default_rng(0)
    whole = generator.integers(1, 5, 200).astype(float)
    part = generator.binomial(whole.astype(int), 0.3).astype(float)
    interval = ratio_interval(part, whole)
    assert interval.value == part.sum() / whole.sum()
    spread = (part - interval.value * whole).std() / np.sqrt(200) / whole.mean()
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * spread, rel=0.1)
    few = ratio_interval(np.eye(200)[0] * whole, whole)
    assert few.method == "none" and np.isnan(few.low)
    assert np.isnan(ratio_interval([0, 0], [0, 0]).value)
    with pytest.raises(ValueError, match=r"in \[0, whole\]"):
        ratio_interval([2.0], [1.0])


def test_draws_have_as_many_images():
    rows = by_image(np.array([[1.0, 1], [2, 1], [4, 1]]), ["a", "b", "a"])
    assert rows.tolist() == [[5, 2], [2, 1]]
    assert {*map(tuple, resampled(rows, 50).tolist())} == {(10, 4), (7, 3), (4, 2)}


@pytest.mark.parametrize("samples", [400])
def test_a_graded_score_detects_smaller_differences(samples):
    """Two arms whose probabilities differ a little: the interval of their means is narrower."""
    narrower = []
    for seed in range(20):
        generator = np.random.default_rng(seed)
        logit = generator.normal(1.5, 1.5, samples)
        first, second = (logit + generator.normal(shift, 0.7, samples) for shift in (0.0, -0.3))
        probabilities = [1 / (1 + np.exp(-values)) for values in (first, second)]
        scores = [(values > 0).astype(float) for values in (first, second)]
        graded, accuracy = paired_interval(*probabilities), paired_interval(*scores)
        assert graded.value > 0
        narrower.append((graded.high - graded.low) / (accuracy.high - accuracy.low))
    assert 0.3 < np.mean(narrower) < 0.7
