"""Questions with long answers: solved again by separate code, and scored by hand."""

import itertools
import re
from collections import Counter

import numpy as np
import pytest

from mustdrop.evaluation.tasks.pocket_long import PocketLong, score
from mustdrop.pocket import LONG_SPLITS, LONG_TYPES, SPLITS, ask_long, items_right, sample, scene
from mustdrop.pocket.dataset import TRAINING_SEED, VALIDATION_SEED
from mustdrop.pocket.scenes import SceneObject

ROW = r"list the objects of the (top|middle|bottom) row from left to right \."
WAY = r"go from the (\w+ \w+) to the (\w+ \w+) \."


@pytest.fixture(scope="module")
def samples():
    return [sample("long_calibration", index) for index in range(160)]


def centre(item):
    return item.left + item.width / 2, item.top + item.height / 2


def solve(question, objects):
    """Answer from the question's words and the objects alone."""
    names = {f"{item.color} {item.shape}": centre(item) for item in objects}
    ordered = sorted(names, key=names.__getitem__)
    if match := re.fullmatch(ROW, question):
        band = {"top": 0, "middle": 1, "bottom": 2}[match[1]]
        return " , ".join(name for name in ordered if names[name][1] // 64 == band)
    match = re.fullmatch(WAY, question)
    first, last = (ordered.index(name) for name in match.groups())
    passed = ordered[first : last + 1] if first < last else ordered[last : first + 1][::-1]
    steps = []
    for here, there in itertools.pairwise(passed):
        steps.append(f"{'up' if names[there][1] < names[here][1] else 'down'} {there}")
    return " , ".join(steps)


def test_every_answer_is_the_only_right_one(samples):
    for drawn in samples:
        assert drawn.answer == solve(drawn.question, drawn.objects)


def test_answers_are_long_and_every_item_is_about_another_object(samples):
    for drawn in samples:
        items = drawn.answer.split(" , ")
        assert 4 <= len(items) <= 9 and len(drawn.answer.split()) >= 11
        assert len({item.split()[-2] + item.split()[-1] for item in items}) == len(items)
        assert len(set(drawn.targets)) == len(drawn.targets) == len(items) + (drawn.type == "way")
    assert Counter(drawn.type for drawn in samples) == {"row": 80, "way": 80}


def test_order_can_be_seen(samples):
    for drawn in samples:
        points = [centre(drawn.objects[i]) for i in drawn.targets]
        for here, there in itertools.pairwise(points):
            assert abs(here[0] - there[0]) >= 8
            assert drawn.type == "row" or abs(here[1] - there[1]) >= 8


def test_short_answers_are_for_training():
    drawn = [
        ask_long(np.random.default_rng(i), scene(1, i, 4, 6).objects, kind, fewest=2)
        for i in range(60)
        for kind in LONG_TYPES
    ]
    assert 2 in {len(question.answer.split(" , ")) for question in drawn if question}
    with pytest.raises(ValueError, match=r"fewest must be in \[1, 9\], got 0"):
        ask_long(np.random.default_rng(0), (), "row", fewest=0)
    with pytest.raises(ValueError, match="type must be one of row, way, got 'color'"):
        ask_long(np.random.default_rng(0), (), "color")


def test_splits_share_no_seed():
    seeds = [split.seed for split in (*SPLITS.values(), *LONG_SPLITS.values())]
    assert len({*seeds, TRAINING_SEED, VALIDATION_SEED}) == len(seeds) + 2


@pytest.mark.parametrize(
    ("given", "share"),
    [
        ("red bus , blue cross , cyan bus", 1),
        ("red bus , cyan bus", 2 / 3),  # one is missing, the others are in order
        ("red bus , blue cross , red cross , cyan bus", 3 / 4),  # one too many
        ("blue cross , red bus , cyan bus", 2 / 3),  # two are swapped
        ("red bus,blue cross,cyan bus", 1),  # spaces do not count
        ("red bus", 1 / 3),
        ("", 0),
    ],
)
def test_items_right_by_hand(given, share):
    assert items_right(given, "red bus , blue cross , cyan bus") == pytest.approx(share)


def test_the_task_scores_items_and_the_whole():
    shown = [SceneObject(color, "bus", None, 0, 0, 9, 9) for color in ("red", "cyan", "green")]
    doc = {"answer": "up red bus , down cyan bus", "type": "way", "objects": shown}
    counts = {"objects_named": 2, "objects_absent": 0}
    half = score(doc, [" up red bus , up cyan bus"])
    assert half == {
        "item_share": 0.5, "item_share_way": 0.5, "exact_match": 0, "exact_match_way": 0, **counts,
    }  # fmt: skip
    whole = dict.fromkeys(half, 1) | counts
    assert score(doc, [doc["answer"]]) == whole
    task = PocketLong("pocket_long", "long_test")
    assert task.config.generation_kwargs["max_new_tokens"] == 48
    with pytest.raises(ValueError, match="split must be one of long_test, long_calibration"):
        PocketLong("pocket_long", "crowded_test")


@pytest.mark.parametrize(
    ("answer", "named", "absent"),
    [
        ("red bus , cyan bus", 2, 0),
        ("up red bus , down blue bus , blue bus", 3, 2),
        ("bus red , red , cyan cross", 1, 1),
        ("", 0, 0),
    ],
)
def test_objects_that_an_answer_names_are_looked_for_in_the_picture(answer, named, absent):
    shown = [SceneObject(color, "bus", None, 0, 0, 9, 9) for color in ("red", "cyan")]
    scores = score({"answer": "red bus", "type": "row", "objects": shown}, [answer])
    assert (scores["objects_named"], scores["objects_absent"]) == (named, absent)


def test_a_right_answer_names_no_absent_object():
    task = PocketLong("pocket_long", "long_test")
    for index in range(4):
        doc = task.dataset_no_image["long_test"][index]
        scores = score(doc, [doc["answer"]])
        assert scores["objects_named"] >= 4 and scores["objects_absent"] == 0
