import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from analysis.statistics.difference import difference
from analysis.statistics.intervals import mean_interval, paired_interval
from analysis.statistics.pairs import pairs


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


BY_IMAGE = (np.arange(64) % 10 > 0).astype(float)  # 64 images, 57 of them easy
IMAGES = np.repeat(np.arange(64), 5)


def ends(found):
    return [found.low, found.high]


def test_arms_that_never_differ_are_as_uncertain_as_their_images_are_few():
    right = np.repeat(BY_IMAGE, 5)
    found, images = paired_interval(right, right, IMAGES), paired_interval(BY_IMAGE, BY_IMAGE)
    assert found.value == 0 and found.n == 320 and found.method == "binomial"
    assert ends(found) == pytest.approx(ends(images), rel=0.06)  # Newcombe's, of 64 samples
    least = 1 - 0.025 ** (1 / 64)  # Clopper-Pearson in closed form, none of 64
    assert ends(found) == pytest.approx([-least, least])
    # the claims say the same of the same scores
    judged = difference(pairs(right, right, IMAGES))
    assert ends(found) == [judged.low, judged.high]
    mixed = np.tile([1.0, 0, 1, 1, 0], 64)
    assert ends(paired_interval(mixed, mixed, IMAGES)) == ends(found)


def test_soft_scores_that_never_differ_have_an_interval():
    soft = np.random.default_rng(0).random(320)
    least = 1 - 0.025 ** (1 / 320)
    assert ends(paired_interval(soft, soft)) == pytest.approx([-least, least])
    images = 1 - 0.025 ** (1 / 64)
    assert ends(paired_interval(soft, soft, IMAGES)) == pytest.approx([-images, images])
    # an average over seeds leaves crumbs, which are no difference
    crumbs = np.mean([soft] * 7, axis=0)
    assert (crumbs != soft).any()
    assert ends(paired_interval(soft, crumbs, IMAGES)) == pytest.approx([-images, images])


def test_arms_that_always_differ_by_as_much_have_an_interval():
    half, images = np.full(320, 0.5), 1 - 0.025 ** (1 / 64)
    found = paired_interval(half, half - 0.2, IMAGES)
    assert ends(found) == pytest.approx([0.2 - 1.2 * images, 0.2 + 0.8 * images])
    best = paired_interval(np.ones(320), np.zeros(320), IMAGES)
    assert ends(best) == pytest.approx([1 - 2 * images, 1])
    judged = difference(pairs(half, half - 0.2, IMAGES))
    assert [judged.low, judged.high] == ends(found) and judged.method == "binomial"
    assert judged.p_at(found.low) == pytest.approx(0.05)
    assert judged.p_at(found.high) == pytest.approx(0.05)
    assert judged.p_at(found.value) == 1 and judged.p < 0.001
    whole = difference(pairs(np.ones(320), np.zeros(320), IMAGES))
    assert whole.p_at(best.low) == pytest.approx(0.05) and whole.p_at(0.99) > 0.05
    none = difference(pairs(np.zeros(320), np.ones(320), IMAGES))
    assert [-none.high, -none.low] == [whole.low, whole.high]
    assert none.p_at(-0.99) == whole.p_at(0.99) and none.p_at(-1) == 1


def test_one_image_that_differs_widens_the_interval_of_none():
    right, worse = np.repeat(BY_IMAGE, 5), np.repeat(BY_IMAGE, 5)
    worse[5] = 0
    same, found = paired_interval(right, right, IMAGES), paired_interval(right, worse, IMAGES)
    assert found.low == same.low and found.high > 1.3 * same.high
    assert ends(paired_interval(worse, right, IMAGES)) == [-found.high, -found.low]
    # from five images that differ on, their spread is what counts
    for images, method in ((4, "binomial"), (5, "cluster")):
        several = right.copy()
        several[5 : 5 * (images + 1) : 5] = 0
        assert paired_interval(several, right, IMAGES).method == method


def test_a_soft_mean_without_spread_has_an_interval():
    least = 1 - 0.025 ** (1 / 64)
    found = mean_interval(np.full(64, 0.3))
    assert ends(found) == pytest.approx([0.3 - 0.3 * least, 0.3 + 0.7 * least])
    assert ends(mean_interval(np.full(320, 0.3), IMAGES)) == pytest.approx(ends(found))
    # nearly all right: Wilson's, whose ends are the roots of its equation
    scores = np.ones(64)
    scores[:2] = 0.6
    for end in ends(mean_interval(scores)):
        standard = (1 - 0.8 / 64 - end) / math.sqrt(end * (1 - end) / 64)
        assert abs(standard) == pytest.approx(stats.norm.ppf(0.975))
    assert ends(mean_interval(1 - scores)) == pytest.approx(
        [1 - end for end in reversed(ends(mean_interval(scores)))]
    )


def test_images_that_are_all_alike_inside_are_not_certain():
    """Always "yes", to one question of each image that is so and one that is not."""
    scores, images = np.tile([1.0, 0.0], 64), np.repeat(np.arange(64), 2)
    least = 1 - 0.025 ** (1 / 64)
    assert ends(mean_interval(scores, images)) == pytest.approx(
        [0.5 - 0.5 * least, 0.5 + 0.5 * least]
    )
    # right where the other is wrong, in each image once: never a difference by image
    found = paired_interval(scores, 1 - scores, images)
    assert ends(found) == pytest.approx([-least, least])


def test_a_heavy_image_counts_by_its_weight():
    sizes = np.array([10] + [1] * 90)
    images, ones = np.repeat(np.arange(91), sizes), np.ones(100)
    least = 1 - 0.025 ** (1 / 91)
    found = paired_interval(ones, ones, images)
    assert found.high == pytest.approx(least * 10 / (100 / 91))
    effective = 100**2 / (90 + 100)  # Kish
    assert pairs(ones, ones, images).effective == effective
    z = stats.norm.ppf(0.975)
    assert mean_interval(ones, images).low == pytest.approx(effective / (effective + z**2))
    assert mean_interval(0 * ones, images).high == pytest.approx(z**2 / (effective + z**2))


def test_one_image_alone_tells_next_to_nothing():
    for scores in ([0.5, 0.5, 0.5], [1, 0, 1], [0.2, 0.4, 0.9]):
        found = mean_interval(scores, ["a"] * 3)
        assert math.isnan(found.low) and found.method == "none"
    for ours, theirs in (([1, 1, 0], [1, 1, 0]), ([0.3, 0.5, 1], [0.3, 0.5, 1])):
        found = paired_interval(ours, theirs, ["a"] * 3)
        assert ends(found) == pytest.approx([-0.975, 0.975])
    assert mean_interval([1, 1, 1], ["a"] * 3) == replace(mean_interval([1]), n=3)


def test_scores_outside_0_and_1_without_spread_have_no_interval():
    for found in (
        mean_interval([1600.0] * 40),
        mean_interval([10.0] * 40, np.repeat(np.arange(10), 4)),
        paired_interval([7.0] * 40, [5.0] * 40),
        paired_interval([1.0] * 40, [-1.0] * 40, np.repeat(np.arange(10), 4)),
        mean_interval([1.0] * 38 + [5.0] * 2),
    ):
        assert math.isnan(found.low) and math.isnan(found.high) and found.method == "none"
    varied = mean_interval(np.random.default_rng(0).normal(1600, 100, 40))
    assert varied.method == "t" and varied.low < 1600 < varied.high


def test_few_samples_that_all_differ_still_have_students_interval():
    scores = [0.2, 0.4, 0.5, 0.9]
    half = stats.t.ppf(0.975, 3) * stats.sem(scores)
    assert ends(mean_interval(scores)) == pytest.approx([0.5 - half, 0.5 + half])
    assert paired_interval(scores, [0.0] * 4).method == "t"


def test_wilsons_interval_is_scipys_to_the_bit():
    for right, n in ((0, 7), (7, 7), (3, 7), (311, 320), (1, 2)):
        scores = [1] * right + [0] * (n - right)
        expected = stats.binomtest(right, n).proportion_ci(method="wilson")
        assert ends(mean_interval(scores)) == [float(expected.low), float(expected.high)]


def test_half_of_the_images_are_no_commonest_value():
    assert mean_interval([0.2, 0.2, 0.8, 0.9]).method == "t"
    assert mean_interval([0.2, 0.2, 0.2, 0.9]).method == "binomial"


def test_bounds_stay_on_the_scale_of_the_scores():
    images = np.repeat(np.arange(6), [50, 1, 1, 1, 1, 1])
    soft = np.full(55, 0.3)
    assert ends(mean_interval(soft, images)) == [0, 1]
    assert ends(paired_interval(soft, soft, images)) == [-1, 1]
    # Student's interval of a share, too: eight images, half of them all right
    scores = np.array([1, 1, 1, 1] * 4 + [1, 1, 1, 0] * 3 + [1, 0, 0, 0], dtype=float)
    found = mean_interval(scores, np.repeat(np.arange(8), 4))
    assert found.method == "cluster" and found.high == 1 and found.low < 0.7


def test_the_clustered_interval_has_a_degree_of_freedom_for_each_image_but_one():
    rng = np.random.default_rng(5)
    scores, images = rng.random(60), np.repeat(np.arange(6), 10)
    means = scores.reshape(6, 10).mean(1)
    half = stats.t.ppf(0.975, 5) * stats.sem(means)
    found = mean_interval(scores, images)
    assert ends(found) == pytest.approx([means.mean() - half, means.mean() + half])


def test_most_images_all_right_and_many_that_are_not_have_a_spread_of_their_own():
    scores = np.ones((30, 5))
    scores[:10, 0] = 0
    found = mean_interval(scores.ravel(), np.repeat(np.arange(30), 5))
    assert found.method == "cluster" and found.high < 1
    soft = np.ones(30)
    soft[:6] = 0.5
    assert mean_interval(soft).method == "t"


def test_p_and_bounds_agree_for_heavy_images_and_at_the_end_of_the_scale():
    images, ones = np.repeat(np.arange(91), [10] + [1] * 90), np.ones(100)
    found = difference(pairs(ones, ones, images))
    assert found.p_at(found.low) == pytest.approx(0.05)
    whole = difference(pairs(ones, 0 * ones, images))
    assert whole.p_at(1.0) == 1 and whole.p_at(whole.low) == pytest.approx(0.05)


def test_a_constant_difference_is_one_whatever_the_last_digits():
    ours = 0.2 + 0.8 * np.random.default_rng(3).random(320)
    assert len(np.unique(ours - (ours - 0.2))) > 1
    judged = difference(pairs(ours, ours - 0.2, IMAGES))
    assert judged.method == "binomial" and judged.high - judged.low > 0.1
    assert paired_interval(ours, ours - 0.2, IMAGES).method == "binomial"
