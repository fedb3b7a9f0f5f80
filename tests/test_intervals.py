import math

import numpy as np
import pytest

from analysis.statistics.intervals import mean_interval, paired_interval


def test_the_paired_interval_is_newcombes():
    # worked examples: Altman et al., Statistics with Confidence (2000), p. 52, and Newcombe (1998)
    for both, first, second, neither, low, high in (
        (14, 5, 0, 22, 0.011, 0.226),
        (36, 12, 2, 0, 0.0569, 0.3404),
    ):
        ours = [1] * both + [1] * first + [0] * second + [0] * neither
        theirs = [1] * both + [0] * first + [1] * second + [0] * neither
        found = paired_interval(ours, theirs)
        assert [found.low, found.high] == pytest.approx([low, high], abs=6e-4)
        mirrored = paired_interval(theirs, ours)
        assert [-mirrored.high, -mirrored.low] == pytest.approx([found.low, found.high])


def test_the_paired_interval_covers_the_truth_and_pairing_is_what_narrows_it():
    rng = np.random.default_rng(0)
    covered, widths, unpaired = [], [], []
    for _ in range(400):
        level = rng.random(80)
        ours, theirs = level < 0.7, level + rng.normal(0, 0.1, 80) < 0.6
        found = paired_interval(ours, theirs)
        covered.append(found.low <= 0.1 <= found.high)
        widths.append(found.high - found.low)
        broken = paired_interval(ours, rng.permutation(theirs))
        unpaired.append(broken.high - broken.low)
    assert 0.92 <= np.mean(covered) <= 1
    assert np.mean(widths) < 0.75 * np.mean(unpaired)


def test_too_few_samples_have_no_interval():
    assert mean_interval([]).n == 0
    assert math.isnan(mean_interval([0.5]).low)
    assert mean_interval([1, 1]).high == 1
    with pytest.raises(ValueError, match="equal lengths"):
        paired_interval([1, 0], [1])
    with pytest.raises(ValueError, match="finite"):
        mean_interval([1.0, math.nan])


def test_samples_that_share_an_image_widen_the_interval_and_it_still_covers():
    """60 images, 8 questions each that the image makes easy or hard: counted singly, too narrow."""
    rng = np.random.default_rng(1)
    images = np.repeat(np.arange(60), 8)
    whole, single, paired, unpaired = [], [], [], []
    for _ in range(300):
        easy = rng.beta(1.5, 1.5, 60)[images]
        ours = rng.random(480) < easy
        theirs = rng.random(480) < rng.beta(1.5, 1.5, 60)[images]
        found, narrow = mean_interval(ours, images), mean_interval(ours)
        assert (found.method, narrow.method) == ("cluster", "wilson")
        whole.append(found.low <= 0.5 <= found.high)
        single.append(narrow.low <= 0.5 <= narrow.high)
        found, narrow = paired_interval(ours, theirs, images), paired_interval(ours, theirs)
        paired.append(found.low <= 0 <= found.high)
        unpaired.append(narrow.low <= 0 <= narrow.high)
    assert 0.92 <= np.mean(whole) <= 0.98 and np.mean(single) < 0.85
    assert 0.92 <= np.mean(paired) <= 0.98 and np.mean(unpaired) < 0.85


def test_with_one_question_an_image_nothing_changes():
    scores, images = [1, 0, 1, 1, 0, 1], list("abcdef")
    assert mean_interval(scores, images) == mean_interval(scores)
    assert paired_interval(scores, scores[::-1], images) == paired_interval(scores, scores[::-1])
    assert mean_interval(scores, [None] * 6) == mean_interval(scores)


def test_where_all_is_right_every_image_counts_once():
    found = mean_interval([1.0] * 40, np.repeat(np.arange(10), 4))
    alone = mean_interval([1.0] * 10)
    assert (found.value, found.low, found.high) == (1.0, alone.low, alone.high)
    assert found.n == 40
    same = paired_interval([1, 0, 1, 0], [1, 0, 1, 0], [0, 0, 1, 1])
    assert same.value == 0 and same.low < 0 < same.high
    one = mean_interval([1, 0, 1, 0], [0, 0, 0, 0])
    assert math.isnan(one.low) and one.method == "none"
