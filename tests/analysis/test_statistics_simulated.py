"""What the intervals and tests promise, kept over 1,000 simulated tables each.

A table is two arms on the same questions, several an image; the image decides how hard they are
for either arm, so that its questions go together. The truth is known.
"""

import numpy as np
import pytest
from scipy import stats

from analysis.statistics.bootstrap import bootstrap, percentiles
from analysis.statistics.difference import difference
from analysis.statistics.intervals import mean_interval, paired_interval
from analysis.statistics.mcnemar import mcnemar_p
from analysis.statistics.multiplicity import holm
from analysis.statistics.noninferiority import noninferior
from analysis.statistics.pairs import pairs
from analysis.statistics.power import samples_needed
from analysis.statistics.sign_flip import sign_flip_p

TABLES = 1000
DRAWS = 999


def table(rng, images=100, most=5, gap=0.0):
    """Scores of 0 and 1 of two arms whose accuracies are 0.75 + gap and 0.75."""
    sizes = rng.integers(1, most + 1, images)
    easy = rng.beta((0.75 + gap) * 1.2, (0.25 - gap) * 1.2, images), rng.beta(0.9, 0.3, images)
    ours, theirs = (rng.random(sizes.sum()) < np.repeat(p, sizes) for p in easy)
    return pairs(ours.astype(float), theirs.astype(float), np.repeat(np.arange(images), sizes))


def tables(seed, **more):
    rng = np.random.default_rng(seed)
    return [table(rng, **more) for _ in range(TABLES)]


def broken_up(found):
    """The same scores, as if each question had an image of its own."""
    return pairs(found.ours, found.theirs)


@pytest.mark.parametrize("images", [30, 100])
def test_the_clustered_interval_covers_the_truth_in_95_of_100_tables(images):
    gap = 0.06
    ends = [percentiles(bootstrap(t, DRAWS)) for t in tables(1, images=images, gap=gap)]
    assert 0.93 <= np.mean([low <= gap <= high for low, high in ends]) <= 0.97


def test_an_interval_that_takes_questions_for_images_covers_too_rarely():
    gap = 0.06
    ends = [percentiles(bootstrap(broken_up(t), DRAWS)) for t in tables(1, gap=gap)]
    assert np.mean([low <= gap <= high for low, high in ends]) < 0.91


def test_bounds_of_tables_in_which_next_to_nothing_differs_never_cover_too_rarely():
    rng = np.random.default_rng(2)
    covered, methods = [], set()
    for rate in (0.002, 0.01, 0.04):
        for _ in range(150):
            ours, theirs = (1.0 - (rng.random(300) < rate * part) for part in (1.0, 0.25))
            found = difference(pairs(ours, theirs), DRAWS)
            methods.add(found.method)
            covered.append(found.low <= -0.75 * rate <= found.high)
    assert methods == {"binomial", "bootstrap"} and np.mean(covered) >= 0.95


def barely(rng, rate, images=64, sizes=5, whole=True):
    """Two arms that are right but where an image, at this rate, makes one of them fail."""
    counts = np.full(images, sizes)
    which = np.repeat(np.arange(images), counts)
    hit = (rng.random(images) < rate)[which] & (whole or rng.random(len(which)) < 0.5)
    ours = np.where(hit, 0.0, 1.0)
    return ours, np.ones(len(ours)), which


@pytest.mark.parametrize("whole", [True, False])
def test_closed_intervals_cover_the_truth_where_next_to_no_image_differs(whole):
    rng = np.random.default_rng(10)
    covered, plain = [], []
    for expected in (2, 4):
        rate = expected / 64
        truth = rate if whole else rate / 2
        for _ in range(120):
            ours, theirs, images = barely(rng, rate, whole=whole)
            found, mean = paired_interval(ours, theirs, images), mean_interval(ours, images)
            covered.append((found.low <= -truth <= found.high, mean.low <= 1 - truth <= mean.high))
            shared = pairs(ours, theirs, images)
            error = np.sqrt(64 / 63 * np.sum((shared.sums - 5 * shared.value) ** 2)) / 320
            plain.append(abs(shared.value + truth) <= stats.t.ppf(0.975, 63) * error)
    assert (np.mean(covered, axis=0) >= 0.95).all()
    assert np.mean(plain) < 0.92  # the negative control: t on the same tables


def test_soft_scores_of_which_next_to_none_differs_are_covered():
    rng = np.random.default_rng(11)
    covered, plain = [], []
    for expected in (0.7, 2, 4):
        for _ in range(60):
            worse = (rng.random(200) < expected / 200) * 0.4
            theirs = 0.5 + 0.5 * rng.random(200)
            found = paired_interval(theirs - worse, theirs)
            mean = mean_interval(0.7 - worse)
            truth = 0.4 * expected / 200
            covered.append(
                (found.low <= -truth <= found.high, mean.low <= 0.7 - truth <= mean.high)
            )
            half = stats.t.ppf(0.975, 199) * stats.sem(worse)
            plain.append(abs(worse.mean() - truth) <= half)
    assert (np.mean(covered, axis=0) >= 0.95).all() and np.mean(plain) < 0.9


def test_the_sign_flip_finds_a_difference_that_is_none_in_5_of_100_tables():
    drawn = tables(3)
    found = np.mean([sign_flip_p(t, DRAWS) < 0.05 for t in drawn])
    assert 0.035 <= found <= 0.065
    # the negative controls: both take questions of one image for independent ones
    assert np.mean([sign_flip_p(broken_up(t), DRAWS) < 0.05 for t in drawn]) > 0.09
    assert np.mean([mcnemar_p(*t.discordant) < 0.05 for t in drawn]) > 0.09


def test_mcnemars_midp_finds_a_difference_that_is_none_in_5_of_100_independent_tables():
    drawn = [t.discordant for t in tables(4, most=1, images=200)]
    assert 0.035 <= np.mean([mcnemar_p(*counts) < 0.05 for counts in drawn]) <= 0.065


def test_a_difference_at_the_margin_is_called_noninferior_in_1_of_40_tables():
    ends = [percentiles(bootstrap(t, DRAWS)) for t in tables(5, gap=-0.05)]
    assert 0.012 <= np.mean([noninferior(*end, 0.05) == "yes" for end in ends]) <= 0.04
    assert 0.012 <= np.mean([noninferior(*end, 0.05) == "no" for end in ends]) <= 0.04
    easy = [percentiles(bootstrap(t, DRAWS)) for t in tables(6, gap=0.0)[:200]]
    assert np.mean([noninferior(*end, 0.20) == "yes" for end in easy]) > 0.95


def test_holm_finds_anything_false_in_at_most_5_of_100_families(monkeypatch):
    monkeypatch.setattr("gc.collect", lambda: 0)  # statsmodels sweeps the memory after each family
    rng = np.random.default_rng(7)
    # ten tests of nothing that share what they are held against, as claims share an arm, and two
    # of something
    shared = rng.normal(size=(4000, 1))
    z = np.hstack([0.6 * shared + 0.8 * rng.normal(size=(4000, 10)), rng.normal(4, 1, (4000, 2))])
    p = 2 * stats.norm.sf(np.abs(z))
    adjusted = np.array([holm(row) for row in p[:TABLES]])
    assert 0.015 <= (adjusted[:, :10] < 0.05).any(1).mean() <= 0.06
    assert (adjusted[:, 10:] < 0.05).mean() > 0.8
    assert (p[:, :10] < 0.05).any(1).mean() > 0.25  # the negative control: without it


@pytest.mark.parametrize(("most", "gap"), [(1, 0.08), (5, 0.08)])
def test_as_many_samples_as_are_needed_find_the_difference_in_80_of_100_tables(most, gap):
    pilot = difference(table(np.random.default_rng(8), images=6000, most=most, gap=gap))
    spread = pilot.needed(gap)
    images = round(spread / ((1 + most) / 2))
    rng = np.random.default_rng(9)
    found = [table(rng, images=images, most=most, gap=gap) for _ in range(600)]
    power = np.mean([sign_flip_p(t, DRAWS) < 0.05 and t.value > 0 for t in found])
    assert 0.75 <= power <= 0.85
    if most > 1:  # the negative control: the design effect is what makes it enough
        psi = float((pilot.pairs.differences**2).mean())
        assert samples_needed(gap, psi) < 0.75 * spread
