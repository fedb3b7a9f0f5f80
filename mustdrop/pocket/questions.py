"""Questions about a scene, with their answers and the objects they are about. Knows no model.

Every answer is one word. Every question has exactly one right answer. Answers are spread as evenly
as the scene allows, so that few questions can be answered without the image.
"""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TypeVar

import numpy as np

from mustdrop.pocket.font import CHARACTERS, DIGITS, LETTERS
from mustdrop.pocket.scenes import COLORS, SHAPES, SceneObject

QUESTION_TYPES = ("color", "shape", "number", "letter", "exist", "count", "spatial", "two_hop")
PLURALS = {shape: shape + ("es" if shape.endswith("s") else "s") for shape in SHAPES}
MAX_COUNT = 5
WORDS = frozenset(
    {*("what", "color", "shape", "number", "letter", "how", "many", "is", "are", "there", "?")}
    | {*("a", "the", "on", "of", "or", "left", "right", "above", "below", "object", "objects")}
    | {*("yes", "no"), *COLORS, *SHAPES, *PLURALS.values(), *CHARACTERS}
)

Choice = TypeVar("Choice")

_MIN_DISTANCE = 16  # least pixels between two centres for one to be left of, or above, the other
_SHORT_NAMES = 0.4  # share of the objects of unique shape that are named by the shape alone
_CHOICES = 0.6  # share of the spatial questions that offer both answers
_MAX_OFFSET = 12  # most pixels between a neighbour's centre and the axis through the anchor's
_MIN_MARGIN = 16  # least pixels by which the second nearest object on that side is farther away


@dataclass(frozen=True)
class Question:
    """A question about a scene.

    Attributes:
        type: One of ``QUESTION_TYPES``, or of ``LONG_TYPES``.
        text: Words and question mark, separated by spaces.
        answer: Answer: one word, or items separated by commas for a long type.
        targets: Indices of the objects that the question is about; empty if no object fits.
    """

    type: str
    text: str
    answer: str
    targets: tuple[int, ...]


def ask(rng: np.random.Generator, objects: Sequence[SceneObject], type: str) -> Question | None:
    """Draw a question of a type about the objects; None if the draw allows no such question.

    Raises:
        ValueError: If the type is unknown.
    """
    if type not in _ASK:
        raise ValueError(f"type must be one of {', '.join(QUESTION_TYPES)}, got {type!r}")
    return _ASK[type](rng, objects)


def pick(rng: np.random.Generator, candidates: Sequence[Choice]) -> Choice | None:
    """Draw one of the candidates; None if there are none."""
    return candidates[int(rng.integers(len(candidates)))] if candidates else None


def object_name(item: SceneObject) -> str:
    """Colour and shape of an object, which no other object of its scene has together."""
    return f"{item.color} {item.shape}"


def _color(rng: np.random.Generator, objects: Sequence[SceneObject]) -> Question | None:
    shapes = Counter(item.shape for item in objects)
    target = pick(rng, [i for i, item in enumerate(objects) if shapes[item.shape] == 1])
    if target is None:
        return None
    item = objects[target]
    return Question("color", f"what color is the {item.shape} ?", item.color, (target,))


def _shape(rng: np.random.Generator, objects: Sequence[SceneObject]) -> Question | None:
    colors = Counter(item.color for item in objects)
    target = pick(rng, [i for i, item in enumerate(objects) if colors[item.color] == 1])
    if target is None:
        return None
    item = objects[target]
    return Question("shape", f"what shape is the {item.color} object ?", item.shape, (target,))


def _character(
    rng: np.random.Generator, objects: Sequence[SceneObject], type: str, characters: str
) -> Question | None:
    carried = [(i, item.character) for i, item in enumerate(objects) if item.character]
    chosen = pick(rng, [(i, character) for i, character in carried if character in characters])
    if chosen is None:
        return None
    target, character = chosen
    item = objects[target]
    unique = sum(item.shape == other.shape for other in objects) == 1
    name = item.shape if unique and rng.random() < _SHORT_NAMES else object_name(item)
    return Question(type, f"what {type} is on the {name} ?", character, (target,))


def _number(rng: np.random.Generator, objects: Sequence[SceneObject]) -> Question | None:
    return _character(rng, objects, "number", DIGITS)


def _letter(rng: np.random.Generator, objects: Sequence[SceneObject]) -> Question | None:
    return _character(rng, objects, "letter", LETTERS)


def _exist(rng: np.random.Generator, objects: Sequence[SceneObject]) -> Question | None:
    """Draw an existence question: half have the answer yes, half of the rest are adversarial."""
    present, adversarial = rng.random(2) < 0.5
    return exist(rng, objects, bool(present), bool(adversarial))


def exist(
    rng: np.random.Generator, objects: Sequence[SceneObject], present: bool, adversarial: bool
) -> Question | None:
    """Draw a question whether an object exists, in the style of POPE (arXiv:2305.10355).

    Args:
        rng: Generator of the draw.
        objects: Objects of the scene.
        present: Whether the answer is yes.
        adversarial: Whether colour and shape of the absent object both occur in the scene, but not
            in one object; otherwise at least one of them does not occur.

    Returns:
        The question; None if the objects allow none.
    """
    if present:
        target = int(rng.integers(len(objects)))
        return Question("exist", f"is there a {object_name(objects[target])} ?", "yes", (target,))
    pairs = {(item.color, item.shape) for item in objects}
    colors, shapes = {color for color, _ in pairs}, {shape for _, shape in pairs}
    absent = [
        (color, shape)
        for color in COLORS
        for shape in SHAPES
        if (color, shape) not in pairs and (color in colors and shape in shapes) == adversarial
    ]
    pair = pick(rng, absent)
    if pair is None:
        return None
    return Question("exist", f"is there a {pair[0]} {pair[1]} ?", "no", ())


def _count(rng: np.random.Generator, objects: Sequence[SceneObject]) -> Question | None:
    """Draw the answer first, among the counts that occur, and then a noun with that count."""
    groups = {f"{color} objects": _where(objects, "color", color) for color in COLORS}
    groups |= {PLURALS[shape]: _where(objects, "shape", shape) for shape in SHAPES}
    counts = sorted({len(group) for group in groups.values()} & {*range(MAX_COUNT + 1)})
    answer = pick(rng, counts)
    noun = pick(rng, [noun for noun, group in groups.items() if len(group) == answer])
    if noun is None:
        return None
    return Question("count", f"how many {noun} are there ?", str(answer), groups[noun])


def _where(objects: Sequence[SceneObject], attribute: str, value: str) -> tuple[int, ...]:
    return tuple(i for i, item in enumerate(objects) if getattr(item, attribute) == value)


def _spatial(rng: np.random.Generator, objects: Sequence[SceneObject]) -> Question | None:
    axis = int(rng.integers(2))
    along = [item.center[axis] for item in objects]
    pairs = product(range(len(objects)), repeat=2)
    pair = pick(rng, [(i, j) for i, j in pairs if abs(along[i] - along[j]) >= _MIN_DISTANCE])
    if pair is None:
        return None
    first, second = pair
    before = along[first] < along[second]
    sides, suffix = (("left", "right"), " of") if axis == 0 else (("above", "below"), "")
    if rng.random() < _CHOICES:
        relation, answer = f"{sides[0]} or {sides[1]}", sides[0] if before else sides[1]
    else:
        side = int(rng.integers(2))
        relation, answer = sides[side], "yes" if before == (side == 0) else "no"
    names = object_name(objects[first]), object_name(objects[second])
    text = f"is the {names[0]} {relation}{suffix} the {names[1]} ?"
    return Question("spatial", text, answer, pair)


def _two_hop(rng: np.random.Generator, objects: Sequence[SceneObject]) -> Question | None:
    """Draw a question about an unnamed object that is the neighbour of a named one."""
    attribute = str(rng.choice(["color", "shape", "number", "letter"]))
    characters = {"number": DIGITS, "letter": LETTERS}.get(attribute)
    chosen = pick(
        rng,
        [
            (anchor, side, target)
            for anchor in range(len(objects))
            for side in _SIDES
            if (target := _neighbour(objects, anchor, side)) is not None
            if characters is None or (objects[target].character or "?") in characters
        ],
    )
    if chosen is None:
        return None
    anchor, side, target = chosen
    item = objects[target]
    verb, answer = "is", item.color if attribute == "color" else item.shape
    if characters is not None:
        verb, answer = "is on", str(item.character)
    text = f"what {attribute} {verb} the object {side} the {object_name(objects[anchor])} ?"
    return Question("two_hop", text, answer, (anchor, target))


# Axis (0: across, 1: down) and direction of each side, by its words in a question.
_SIDES = {"left of": (0, -1), "right of": (0, 1), "above": (1, -1), "below": (1, 1)}


def _neighbour(objects: Sequence[SceneObject], anchor: int, side: str) -> int | None:
    """Index of the nearest object within 45 degrees of a side; None if it is ambiguous."""
    axis, direction = _SIDES[side]
    origin = objects[anchor].center
    near: list[tuple[float, float, int]] = []
    for index, item in enumerate(objects):
        along = direction * (item.center[axis] - origin[axis])
        offset = abs(item.center[1 - axis] - origin[1 - axis])
        if index != anchor and along > 0 and offset <= along:
            near.append((math.hypot(along, offset), offset, index))
    near.sort()
    if not near or near[0][1] > _MAX_OFFSET:
        return None
    if len(near) > 1 and near[1][0] < near[0][0] + _MIN_MARGIN:
        return None
    return near[0][2]


_ASK: dict[str, Callable[[np.random.Generator, Sequence[SceneObject]], Question | None]] = {
    "color": _color,
    "shape": _shape,
    "number": _number,
    "letter": _letter,
    "exist": _exist,
    "count": _count,
    "spatial": _spatial,
    "two_hop": _two_hop,
}
