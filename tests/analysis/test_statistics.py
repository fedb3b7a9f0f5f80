"""Closed forms, worked examples and naive loops against the statistics of paired scores."""

import itertools
import math
import time

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar

from analysis.statistics.binomial import binomial_bounds, binomial_p
from analysis.statistics.bootstrap import bootstrap, percentile_p, percentiles, widening
from analysis.statistics.difference import difference
from analysis.statistics.mcnemar import mcnemar_p
from analysis.statistics.multiplicity import holm
from analysis.statistics.noninferiority import equivalent, noninferior
from analysis.statistics.pairs import clustered_error, design_effect, pairs
from analysis.statistics.power import detectable, samples_needed
from analysis.statistics.sign_flip import sign_flip_p


def scored(seed=0, images=40, most=4):
    """Scores of two arms, with one to ``most`` questions an image that share a common part."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, most + 1, images)
    image = np.repeat(np.arange(images), sizes)
    ours = rng.random(len(image)) < np.repeat(rng.beta(2, 1, images), sizes)
    theirs = rng.random(len(image)) < np.repeat(rng.beta(1, 1, images), sizes)
    return ours.astype(float), theirs.astype(float), [f"i{one}" for one in image]


def test_samples_of_unknown_image_are_clusters_of_their_own():
    found = pairs([1, 0, 1, 1, 0], [0, 0, 1, 0, 1], ["a", None, "a", None, "b"])
    assert found.images == 4 and found.clustered
    assert sorted(found.sizes) == [1, 1, 1, 2]
    by_image = {frozenset(np.flatnonzero(found.clusters == code)) for code in found.clusters}
    assert by_image == {frozenset({0, 2}), frozenset({1}), frozenset({3}), frozenset({4})}
    assert pairs([1, 0], [0, 0], [None, None]).images == pairs([1, 0], [0, 0]).images == 2


def test_scores_that_do_not_pair_are_refused():
    for ours, theirs, images, said in (
        ([1, 0], [1], None, "equal lengths"),
        ([1, math.nan], [1, 0], None, "finite"),
        ([1, 0], [1, 0], ["a"], "image per sample"),
    ):
        with pytest.raises(ValueError, match=said):
            pairs(ours, theirs, images)


def test_the_cluster_robust_error_is_the_sandwich_and_plain_without_clusters():
    ours, theirs, images = scored()
    found = pairs(ours, theirs, images)
    parts = ours - theirs - (ours - theirs).mean()
    meat = sum(parts[found.clusters == g].sum() ** 2 for g in range(found.images))
    few = found.images / (found.images - 1)  # statsmodels' (n - 1) / (n - k) is 1 here
    assert clustered_error(found) == pytest.approx(math.sqrt(few * meat) / found.n)
    plain = pairs(ours, theirs)
    assert clustered_error(plain) == pytest.approx(stats.sem(ours - theirs))
    assert design_effect(plain) == 1
    doubled = pairs(np.repeat(ours, 2), np.repeat(theirs, 2), np.repeat(np.arange(plain.n), 2))
    assert design_effect(doubled) == pytest.approx(2, rel=0.02)  # the same answer twice is one


def test_the_bootstrap_is_a_naive_loop_over_images():
    ours, theirs, images = scored(seed=3)
    found = pairs(ours, theirs, images)
    rng = np.random.default_rng(1)
    members = [np.flatnonzero(found.clusters == g) for g in range(found.images)]
    naive = []
    for _ in range(4000):
        drawn = np.concatenate([members[g] for g in rng.integers(0, found.images, found.images)])
        naive.append(found.differences[drawn].mean())
    wide = widening(found.images)
    drawn = bootstrap(found, 20_000)
    undone = found.value + (drawn - found.value) / wide
    assert undone.std() == pytest.approx(np.std(naive), rel=0.04)
    assert percentiles(undone) == pytest.approx(percentiles(np.array(naive)), abs=0.012)
    assert undone.std() == pytest.approx(clustered_error(found), rel=0.04)
    # the negative control: samples drawn one by one are another, narrower distribution
    assert np.std(bootstrap(pairs(ours, theirs))) < 0.93 * drawn.std()


def test_a_draw_divides_by_the_questions_it_drew():
    # every question a point better, some images with many: every draw is a point better
    better = pairs(np.ones(60), np.zeros(60), [f"i{int(one**0.5)}" for one in range(60)])
    assert better.images == 8 and bootstrap(better, 500) == pytest.approx(np.ones(500))


def test_few_images_widen_the_interval_as_t_does():
    assert widening(2) == pytest.approx(math.sqrt(2) * 12.706 / 1.960, rel=1e-3)
    assert widening(10**6) == pytest.approx(1, abs=1e-5)
    rng = np.random.default_rng(0)
    normal = pairs(rng.normal(size=12), np.zeros(12))
    half = stats.t.ppf(0.975, 11) * stats.sem(normal.ours)
    low, high = percentiles(bootstrap(normal, 50_000))
    assert high - low == pytest.approx(2 * half, rel=0.03)


def test_the_bootstrap_is_the_same_twice_in_blocks_and_fast():
    ours, theirs, images = scored(seed=5, images=10_000, most=1)
    found = pairs(ours, theirs, images)
    start = time.perf_counter()
    drawn = bootstrap(found)
    assert time.perf_counter() - start < 5
    assert len(drawn) == 10_000 and (drawn == bootstrap(found)).all()
    assert not (drawn == bootstrap(found, seed=1)).all()
    soft = pairs(np.random.default_rng(0).random(3000), np.zeros(3000))  # 3,000 kinds: in blocks
    assert bootstrap(soft, 1500).std() == pytest.approx(clustered_error(soft), rel=0.06)
    with pytest.raises(ValueError, match="2 or more images"):
        bootstrap(pairs([1, 0], [0, 0], ["a", "a"]))


def test_the_bootstraps_p_is_below_five_percent_where_its_interval_leaves_the_null_out():
    drawn = bootstrap(pairs(*scored(seed=2)))
    low, high = percentiles(drawn)
    # a draw is one of a lattice of values, so a hair outside both ways
    for null, inside in ((low - 1e-3, False), (high + 1e-3, False), ((low + high) / 2, True)):
        assert (percentile_p(drawn, null) >= 0.05) == inside
    assert percentile_p(drawn, 9.0) == pytest.approx(2 / 10_001)


def test_nothing_that_differs_is_no_proof_of_nothing():
    same = np.ones(320)
    found = difference(pairs(same, same))
    assert found.value == 0 and found.p == 1 and found.method == "binomial"
    least = 1 - 0.025 ** (1 / 320)  # no loss in n: Clopper-Pearson in closed form
    assert [found.low, found.high] == pytest.approx([-least, least])
    assert found.p_at(-0.01) == pytest.approx(2 * 0.99**320)
    assert noninferior(found.low, found.high, 0.01) == "open"
    assert noninferior(found.low, found.high, 0.012) == "yes"
    many = difference(pairs(np.ones(5000), np.ones(5000)))
    assert noninferior(many.low, many.high, 0.01) == "yes"


@pytest.mark.parametrize("worse", [0, 1, 4])
def test_the_bounds_of_few_differences_are_those_at_which_so_few_are_a_chance_of_one_in_forty(
    worse,
):
    ours = np.ones(200)
    ours[:worse] = 0
    found = pairs(ours, np.ones(200), np.repeat(np.arange(100), 2))
    low, _ = binomial_bounds(found)
    changed = len(set(found.clusters[:worse]))
    assert stats.binom.cdf(changed, 100, -low) == pytest.approx(0.025)
    assert binomial_p(found, low) == pytest.approx(0.05)


def test_an_image_with_more_questions_widens_the_bounds_and_other_scales_have_none():
    ones = np.ones(100)
    low, _ = binomial_bounds(pairs(ones, ones, [0] * 10 + list(range(1, 91))))
    assert low == pytest.approx(-(1 - 0.025 ** (1 / 91)) * 10 / (100 / 91))
    other = difference(pairs(1600 * ones, 1600 * ones))
    assert other.method == "none" and math.isnan(other.low) and math.isnan(other.p_at(-1))
    assert noninferior(other.low, other.high, 1) == "open"


def test_an_average_over_seeds_leaves_no_crumbs():
    theirs = np.mean([[0.1, 0.2, 0.6]] * 7, axis=0)
    found = pairs([0.1, 0.2, 0.6], theirs)
    assert (found.sums == 0).all() and sign_flip_p(found) == 1


def test_mcnemar_is_statsmodels_the_binomial_and_fagerlands_midp():
    for ours, theirs in ((1, 7), (12, 3), (40, 20), (0, 5)):
        exact = mcnemar([[0, ours], [theirs, 0]], exact=True).pvalue
        assert mcnemar_p(ours, theirs, mid=False) == pytest.approx(exact)
        n, few = ours + theirs, min(ours, theirs)
        sign = sum(math.comb(n, k) for k in range(few)) + math.comb(n, few) / 2
        assert mcnemar_p(ours, theirs) == pytest.approx(2 * sign / 2**n)
    # Fagerland et al. (2013): airway hyper-responsiveness, 1 and 7 of 21: exact 0.070, mid-p 0.039
    assert mcnemar_p(1, 7, mid=False) == pytest.approx(0.0703, abs=1e-4)
    assert mcnemar_p(1, 7) == pytest.approx(0.0391, abs=1e-4)
    assert mcnemar_p(0, 0) == 1 and mcnemar_p(3, 3) == pytest.approx(1 - 20 / 128)
    with pytest.raises(ValueError, match="0 or more"):
        mcnemar_p(-1, 2)


def test_the_sign_flip_is_all_flips_counted_and_mcnemars_exact_without_clusters():
    ours, theirs, images = scored(seed=8, images=9)
    found = pairs(ours, theirs, images)
    observed = abs(found.sums.sum())
    flips = list(itertools.product((1, -1), repeat=found.images))
    beyond = [abs(np.dot(flip, found.sums)) >= observed for flip in flips]
    assert sign_flip_p(found, 40_000) == pytest.approx(np.mean(beyond), abs=0.01)
    plain = pairs([1] * 12 + [0] * 3 + [1] * 30, [0] * 12 + [1] * 3 + [1] * 30)
    assert sign_flip_p(plain, 40_000) == pytest.approx(mcnemar_p(12, 3, mid=False), abs=0.004)


def test_the_test_fits_the_scores():
    ours, theirs, images = scored(seed=4)
    assert difference(pairs(ours, theirs)).test == "McNemar mid-p"
    assert difference(pairs(ours, theirs, images)).test == "sign flips by image"
    assert difference(pairs(ours, theirs / 2)).test == "sign flips by image"
    nothing = difference(pairs([], []))
    assert nothing.method == nothing.test == "none" and math.isnan(nothing.p)
    alone = difference(pairs([1.0], [0.0]))
    assert alone.method == "binomial" and alone.low < 0 < alone.high
    assert alone.needed(0.01) is None


def test_holm_steps_down_and_leaves_out_what_was_not_measured():
    # worked: 0.01 x 4, 0.02 x 3, 0.03 x 2, 0.04 x 1, each at least the one before
    assert holm([0.04, 0.01, math.nan, 0.03, 0.02])[:2] == pytest.approx([0.06, 0.04])
    adjusted = holm([0.04, 0.01, math.nan, 0.03, 0.02])
    assert math.isnan(adjusted[2]) and adjusted[3:] == pytest.approx([0.06, 0.06])
    assert holm([]) == [] and math.isnan(holm([math.nan])[0])
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        holm([0.2, 1.2])


def test_a_margin_is_named_and_above_zero():
    for margin, said in (
        (None, "in advance"),
        (0, "above 0"),
        (-1, "above 0"),
        (math.nan, "above"),
    ):
        with pytest.raises(ValueError, match=said):
            noninferior(-0.5, 0.5, margin)


def test_the_whole_interval_decides():
    for low, high, is_noninferior, is_equivalent in (
        (-0.9, 0.2, "yes", "yes"),
        (-1.1, 0.2, "open", "open"),
        (-3.0, -1.2, "no", "no"),
        (-0.5, 1.5, "yes", "open"),
        (1.2, 3.0, "yes", "no"),
        (-0.9, -0.2, "yes", "yes"),  # significantly worse, and still no worse than the margin
        (math.nan, math.nan, "open", "open"),
    ):
        assert noninferior(low, high, 1) == is_noninferior
        assert equivalent(low, high, 1) == is_equivalent


def test_samples_needed_are_connors():
    # Connor (1987): discordant 0.45 and 0.05, and 0.30 and 0.15; 5 % two-sided, power 80 %
    assert samples_needed(0.40, 0.50) == 23
    assert samples_needed(0.15, 0.45) == samples_needed(-0.15, 0.45) == 155
    assert samples_needed(0.01, 0.10) == math.ceil(
        ((1.959964 * math.sqrt(0.1) + 0.841621 * math.sqrt(0.1 - 1e-4)) / 0.01) ** 2
    )
    assert samples_needed(0.01, 0.10, design=2) == pytest.approx(
        2 * samples_needed(0.01, 0.10), abs=2
    )
    assert samples_needed(0.01, 0.10, power=0.9) > samples_needed(0.01, 0.10)


@pytest.mark.parametrize("design", [1.0, 1.7])
@pytest.mark.parametrize("n", [320, 9000])
def test_what_is_detectable_needs_that_many_samples(n, design):
    found = detectable(n, 0.12, design)
    assert samples_needed(found, 0.12, design) == pytest.approx(n, abs=1)


def test_power_refuses_what_cannot_be():
    for difference_, psi in ((0.0, 0.1), (0.5, 0.1), (0.1, 0.0)):
        with pytest.raises(ValueError, match="square"):
            samples_needed(difference_, psi)
    with pytest.raises(ValueError, match="power"):
        samples_needed(0.1, 0.2, power=1.0)
    with pytest.raises(ValueError, match="n >= 1"):
        detectable(0, 0.1)
    assert math.isnan(detectable(2, 0.1))
