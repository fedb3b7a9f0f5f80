"""PocketVQA's questions: answers found again by separate code, and little to guess."""

import itertools
import re
from collections import Counter

import numpy as np
import pytest

from mustdrop.pocket import QUESTION_TYPES, ask, sample, scene
from mustdrop.pocket.questions import PLURALS, WORDS

YES_NO = {True: "yes", False: "no"}


@pytest.fixture(scope="module")
def samples():
    """Enough of both calibration splits to see frequencies: 60 questions of each type, a split."""
    names = ("crowded_calibration", "easy_calibration")
    return {name: [sample(name, index) for index in range(60 * 8)] for name in names}


def named(objects, name):
    """The objects that a name fits: "red bus", "red object", "bus", "buses", "red objects"."""
    words = [{plural: shape for shape, plural in PLURALS.items()}.get(w, w) for w in name.split()]
    words = [word for word in words if word not in ("object", "objects")]
    return [
        i for i, item in enumerate(objects) if all(w in (item.color, item.shape) for w in words)
    ]


SIDE = r"(left of|right of|above|below)"
TWO_HOP = rf"what (color|shape|number|letter) is (?:on )?the object {SIDE} the (\w+ \w+) \?"
ONE_HOP = rf"what (color|shape|number|letter) is (?:on )?the ((?!object {SIDE}).+) \?"


def beside(objects, anchor, side):
    """The one object on that side that nobody would dispute: nearest, almost straight, alone."""
    boxes = [(o.left + o.width / 2, o.top + o.height / 2) for o in objects]
    turns = {"left of": -1, "right of": 1, "above": -1j, "below": 1j}
    offsets = {
        i: complex(x - boxes[anchor][0], y - boxes[anchor][1]) / turns[side]
        for i, (x, y) in enumerate(boxes)
        if i != anchor
    }
    cone = {i: z for i, z in offsets.items() if z.real > 0 and abs(z.imag) <= z.real}
    first = min(cone, key=lambda i: abs(cone[i]))
    assert abs(cone[first].imag) <= 12
    others = [abs(z) for i, z in cone.items() if i != first]
    assert not others or min(others) >= abs(cone[first]) + 16
    return first


def solve(question, objects):
    """Answer and targets, from the text and the objects alone."""
    if match := re.fullmatch(ONE_HOP, question):
        (target,) = named(objects, match[2])
        attribute = match[1] if match[1] in ("color", "shape") else "character"
        value = getattr(objects[target], attribute)
        assert value.isdigit() == (match[1] == "number")
        return value, {target}
    if match := re.fullmatch(TWO_HOP, question):
        (anchor,) = named(objects, match[3])
        target = beside(objects, anchor, match[2])
        attribute = match[1] if match[1] in ("color", "shape") else "character"
        value = getattr(objects[target], attribute)
        assert value.isdigit() == (match[1] == "number")
        return value, {anchor, target}
    if match := re.fullmatch(r"is there a (\w+ \w+) \?", question):
        found = named(objects, match[1])
        return YES_NO[bool(found)], set(found)
    if match := re.fullmatch(r"how many (.+) are there \?", question):
        found = named(objects, match[1])
        return str(len(found)), set(found)
    pattern = (
        r"is the (\w+ \w+) (left|right|above|below)(?: or (right|below))?(?: of)? the (\w+ \w+) \?"
    )
    match = re.fullmatch(pattern, question)
    (first,), (second,) = named(objects, match[1]), named(objects, match[4])
    a, b = objects[first], objects[second]
    across = a.left + a.width / 2 - b.left - b.width / 2
    down = a.top + a.height / 2 - b.top - b.height / 2
    if match[3]:
        assert (match[2], match[3]) in {("left", "right"), ("above", "below")}
    offset = across if match[2] in ("left", "right") else down
    assert abs(offset) >= 16
    side = {True: ("left", "above"), False: ("right", "below")}[offset < 0]
    if match[3]:
        return next(word for word in (match[2], match[3]) if word in side), {first, second}
    return YES_NO[match[2] in side], {first, second}


def test_every_answer_follows_from_the_objects(samples):
    for one in (*samples["crowded_calibration"], *samples["easy_calibration"]):
        answer, targets = solve(one.question, one.objects)
        assert one.answer == answer, one.question
        assert set(one.targets) == targets, one.question


def test_every_word_is_in_the_vocabulary(samples):
    texts = [f"{one.question} {one.answer}" for split in samples.values() for one in split]
    used = {word for text in texts for word in text.split()}
    assert used <= WORDS
    assert len(WORDS - used) <= 3, "words that no question uses"
    assert max(len(text.split()) for text in texts) <= 13


@pytest.mark.parametrize("split", ["crowded_calibration", "easy_calibration"])
def test_little_can_be_answered_without_looking(samples, split):
    bounds = {
        "color": 0.3,
        "shape": 0.35,
        "number": 0.25,
        "letter": 0.25,
        "exist": 0.65,
        "count": 0.45,
        "spatial": 0.35,
        "two_hop": 0.25,
    }
    answers = {type: Counter() for type in QUESTION_TYPES}
    for one in samples[split]:
        answers[one.type][one.answer] += 1
    for type, counted in answers.items():
        ((_, most),) = counted.most_common(1)
        assert most / counted.total() <= bounds[type], (type, counted)
    assert len(answers["number"]) == len(answers["letter"]) == 10
    assert set(answers["spatial"]) == {"yes", "no", "left", "right", "above", "below"}


def test_half_the_negatives_are_adversarial():
    yes, adversarial, plain = 0, 0, 0
    for index in range(400):
        question = None
        for attempt in itertools.count():
            objects = scene(11, index, 2, 8, attempt).objects
            if question := ask(np.random.default_rng(index), objects, "exist"):
                break
        assert question
        color, shape = question.text.split()[3:5]
        seen = any(o.color == color for o in objects) and any(o.shape == shape for o in objects)
        yes += question.answer == "yes"
        adversarial += question.answer == "no" and seen
        plain += question.answer == "no" and not seen
    assert 0.43 < yes / (yes + adversarial + plain) < 0.57
    assert 0.4 < adversarial / (adversarial + plain) < 0.6


def test_a_question_that_a_scene_does_not_allow_is_not_asked():
    plain = [item for item in scene(7, 0, 10, 10).objects if item.character is None]
    assert plain
    assert ask(np.random.default_rng(0), plain, "number") is None
    assert ask(np.random.default_rng(0), plain[:1], "spatial") is None
