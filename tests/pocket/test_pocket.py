"""PocketVQA: scenes and splits hold what they promise."""

import hashlib
import itertools
from collections import Counter

import numpy as np
import pytest

from mustdrop.pocket import GRID, PATCH_SIZE, QUESTION_TYPES, SPLITS, ask, pope, sample, scene
from mustdrop.pocket.dataset import TRAINING_SEED, VALIDATION_SEED
from mustdrop.pocket.scenes import COLORS, Stream, generator


@pytest.fixture(scope="module")
def samples():
    """Enough of both calibration splits to see frequencies: 60 questions of each type, a split."""
    names = ("crowded_calibration", "easy_calibration")
    return {name: [sample(name, index) for index in range(60 * 8)] for name in names}


# Scenes


def test_a_scene_is_a_function_of_seed_and_index():
    first, again = scene(3, 5, 2, 8), scene(3, 5, 2, 8)
    assert first.objects == again.objects
    assert np.array_equal(first.pixels, again.pixels)
    for other in (scene(3, 6, 2, 8), scene(4, 5, 2, 8), scene(3, 5, 2, 8, attempt=1)):
        assert other.objects != first.objects


def test_streams_and_attempts_share_no_draw():
    draws = [generator(1, 2, stream, k).integers(2**62) for stream in Stream for k in range(3)]
    assert len(set(draws)) == len(draws)


@pytest.mark.parametrize(("fewest", "most"), [(1, 1), (2, 8), (10, 16), (20, 20)])
def test_a_scene_holds_exactly_the_objects_asked_for(fewest, most):
    counts = Counter()
    for index in range(60):
        objects = scene(7, index, fewest, most).objects
        counts[len(objects)] += 1
        assert len({(item.color, item.shape) for item in objects}) == len(objects)
        assert len(scene(7, index, fewest, most, attempt=2).objects) == len(objects)
        for i, item in enumerate(objects):
            assert item.left >= 1 and item.left + item.width < 192
            assert item.top >= 1 and item.top + item.height < 192
            for other in objects[:i]:
                across = max(
                    item.left - other.left - other.width, other.left - item.left - item.width
                )
                down = max(item.top - other.top - other.height, other.top - item.top - item.height)
                assert max(across, down) >= 4
    assert set(counts) == set(range(fewest, most + 1))


def test_only_squares_circles_and_buses_carry_characters():
    objects = [item for index in range(60) for item in scene(7, index, 10, 16).objects]
    carried = Counter(item.shape for item in objects if item.character)
    assert set(carried) == {"square", "circle", "bus"}
    carriers = sum(item.shape in carried for item in objects)
    assert 0.65 < sum(carried.values()) / carriers < 0.85


def test_patch_owners_are_where_the_colours_are(samples):
    """Found again by colour, in the picture alone."""
    for one in samples["crowded_calibration"][:60]:
        pixels = np.asarray(one.image).astype(int)
        for index, item in enumerate(one.objects):
            box = np.zeros((192, 192), bool)
            box[item.top : item.top + item.height, item.left : item.left + item.width] = True
            painted = box & (abs(pixels - COLORS[item.color]).max(-1) <= 18 + 8)
            owned = (one.patch_owner == index).repeat(PATCH_SIZE, 0).repeat(PATCH_SIZE, 1)
            assert painted.sum() >= 40
            assert (painted & owned).sum() >= 0.85 * painted.sum()
            touched = (box & owned).reshape(GRID, PATCH_SIZE, GRID, PATCH_SIZE).any((1, 3))
            assert np.array_equal(touched, one.patch_owner == index)


def test_target_patches_are_those_of_the_objects_asked_about(samples):
    for one in samples["easy_calibration"]:
        expected = np.zeros((GRID, GRID), bool)
        for index in one.targets:
            expected |= one.patch_owner == index
        assert np.array_equal(one.target_patches, expected)
        assert one.target_patches.any() == bool(one.targets)
        assert np.array_equal(one.object_patches, one.patch_owner != -1)
        assert (one.object_patches | ~one.target_patches).all()


# Splits


def test_a_sample_is_a_function_of_split_and_index():
    first, again = sample("crowded_test", 5), sample("crowded_test", 5)
    assert first.image.tobytes() == again.image.tobytes()
    assert (first.question, first.answer) == (again.question, again.answer)


def test_the_samples_are_those_that_published_numbers_were_measured_on():
    pairs = itertools.product(SPLITS, range(16))
    drawn = [sample(name, index) for name, index in pairs]
    texts = [f"{one.question} {one.answer} {one.targets} {one.objects}" for one in drawn]
    digest = hashlib.sha256("\n".join(texts).encode()).hexdigest()
    assert digest[:16] == "c8ce9dde858cd374"


def test_pairs_are_a_yes_and_a_no_about_one_scene():
    pairs = [
        (pope("crowded_calibration", 2 * i), pope("crowded_calibration", 2 * i + 1))
        for i in range(60)
    ]
    for number, (yes, no) in enumerate(pairs):
        assert (yes.answer, no.answer) == ("yes", "no") and yes.index + 1 == no.index
        assert yes.objects == no.objects and yes.image.tobytes() == no.image.tobytes()
        assert yes.type == no.type == ("random" if number % 2 else "adversarial")
        assert yes.target_patches.any() and not no.target_patches.any()
        there = {(item.color, item.shape) for item in yes.objects}
        asked = [tuple(one.question.split()[3:5]) for one in (yes, no)]
        assert asked[0] in there and asked[1] not in there
        seen = asked[1][0] in {color for color, _ in there} and asked[1][1] in {
            shape for _, shape in there
        }
        assert seen == (no.type == "adversarial")


def test_splits_are_disjoint():
    seeds = [split.seed for split in SPLITS.values()]
    assert len({*seeds, TRAINING_SEED, VALIDATION_SEED}) == len(seeds) + 2
    images = [sample(name, index).image.tobytes() for name in SPLITS for index in range(30)]
    assert len(set(images)) == len(images)


@pytest.mark.parametrize(("name", "fewest", "most"), [("easy", 2, 8), ("crowded", 10, 16)])
def test_splits_hold_the_objects_they_promise(name, fewest, most, samples):
    counts = Counter(len(one.objects) for one in samples[f"{name}_calibration"])
    assert set(counts) == set(range(fewest, most + 1))
    assert max(counts.values()) < 2 * min(counts.values())
    split = SPLITS[f"{name}_test"]
    assert (split.fewest, split.most) == (fewest, most)


def test_question_types_are_balanced_from_any_multiple_of_eight(samples):
    for split in samples.values():
        blocks = [[one.type for one in split[i : i + 8]] for i in range(0, len(split), 8)]
        assert all(sorted(block) == sorted(QUESTION_TYPES) for block in blocks)
        assert len({tuple(block) for block in blocks}) > 50


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: sample("hard", 0), "crowded_test, crowded_calibration, easy_test"),
        (lambda: sample("easy_test", -1), r"index must be in \[0, 10000\)"),
        (lambda: sample("easy_test", 10_000), r"index must be in \[0, 10000\)"),
        (lambda: pope("hard", 0), "crowded_test, crowded_calibration, easy_test"),
        (lambda: pope("easy_test", 20_000), r"index must be in \[0, 20000\)"),
        (lambda: scene(0, 0, 0, 4), "1 <= fewest <= most <= 20"),
        (lambda: scene(0, 0, 5, 4), "1 <= fewest <= most <= 20"),
        (lambda: scene(0, 0, 5, 21), "1 <= fewest <= most <= 20"),
        (lambda: scene(-1, 0, 2, 4), "must be >= 0"),
        (lambda: ask(np.random.default_rng(0), (), "age"), "color, shape, number, letter"),
    ],
)
def test_bad_input_says_what_was_expected(call, message):
    with pytest.raises(ValueError, match=message):
        call()
