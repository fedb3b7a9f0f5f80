"""Questions about a scene, with the answer and the objects that hold it. Knows no model.

Every answer is one word. A question is asked only where it has exactly one answer, and its answers
are spread as evenly as the scene allows, so that little can be answered without looking.
"""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
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

_APART = 16  # least pixels between two centres before one is left of, or above, the other
_SHORT_NAMES = 0.4  # share of the objects with a shape of their own that are named by it alone
_CHOICES = 0.6  # share of the spatial questions that offer both answers
_BESIDE = 12  # most pixels off the axis for one object to be simply left of, or above, another
_CLEAR = 16  # least pixels by which the next object on that side is farther away


@dataclass(frozen=True)
class Question:
    """A question about a scene.

    Attributes:
        type: One of ``QUESTION_TYPES``.
        text: Words with a space between them, the question mark too.
        answer: One word.
        targets: The objects to look at, by index; none where the answer is that there is none.
    """

    type: str
    text: str
    answer: str
    targets: tuple[int, ...]


def ask(rng: np.random.Generator, objects: Sequence[SceneObject], type: str) -> Question | None:
    """A question of this type about these objects, or None if the draw allows none.

    Raises:
        ValueError: If there is no such type.
    """
    if type not in _ASK:
        raise ValueError(f"type must be one of {', '.join(QUESTION_TYPES)}, got {type!r}")
    return _ASK[type](rng, objects)


def _pick(rng: np.random.Generator, candidates: Sequence[Choice]) -> Choice | None:
    return candidates[int(rng.integers(len(candidates)))] if candidates else None


def _name(item: SceneObject) -> str:
    return f"{item.color} {item.shape}"


def _color(rng: np.random.Generator, objects: Sequence[SceneObject]) -> Question | None:
    shapes = Counter(item.shape for item in objects)
    target = _pick(rng, [i for i, item in enumerate(objects) if shapes[item.shape] == 1])
    if target is None:
        return None
    item = objects[target]
    return Question("color", f"what color is the {item.shape} ?", item.color, (target,))


def _shape(rng: np.random.Generator, objects: Sequence[SceneObject]) -> Question | None:
    colors = Counter(item.color for item in objects)
    target = _pick(rng, [i for i, item in enumerate(objects) if colors[item.color] == 1])
    if target is None:
        return None
    item = objects[target]
    return Question("shape", f"what shape is the {item.color} object ?", item.shape, (target,))


def _character(
    rng: np.random.Generator, objects: Sequence[SceneObject], type: str, characters: str
) -> Question | None:
    carried = [(i, item.character) for i, item in enumerate(objects) if item.character]
    pick = _pick(rng, [(i, character) for i, character in carried if character in characters])
    if pick is None:
        return None
    target, character = pick
    item = objects[target]
    alone = sum(item.shape == other.shape for other in objects) == 1
    name = item.shape if alone and rng.random() < _SHORT_NAMES else _name(item)
    return Question(type, f"what {type} is on the {name} ?", character, (target,))


def _number(rng: np.random.Generator, objects: Sequence[SceneObject]) -> Question | None:
    return _character(rng, objects, "number", DIGITS)


def _letter(rng: np.random.Generator, objects: Sequence[SceneObject]) -> Question | None:
    return _character(rng, objects, "letter", LETTERS)


def _exist(rng: np.random.Generator, objects: Sequence[SceneObject]) -> Question | None:
    """Half yes, half of the rest adversarial."""
    present, adversarial = rng.random(2) < 0.5
    return exist(rng, objects, bool(present), bool(adversarial))


def exist(
    rng: np.random.Generator, objects: Sequence[SceneObject], present: bool, adversarial: bool
) -> Question | None:
    """Whether something is there, in the manner of POPE (arXiv:2305.10355).

    Args:
        rng: What to draw from.
        objects: Of the scene.
        present: Whether the answer is yes.
        adversarial: Whether what is absent has a colour and a shape that are both there, yet not
            in one object; else one of the two is not there at all.

    Returns:
        A question; None if these objects allow none.
    """
    if present:
        target = int(rng.integers(len(objects)))
        return Question("exist", f"is there a {_name(objects[target])} ?", "yes", (target,))
    pairs = {(item.color, item.shape) for item in objects}
    colors, shapes = {color for color, _ in pairs}, {shape for _, shape in pairs}
    absent = [
        (color, shape)
        for color in COLORS
        for shape in SHAPES
        if (color, shape) not in pairs and (color in colors and shape in shapes) == adversarial
    ]
    pair = _pick(rng, absent)
    if pair is None:
        return None
    return Question("exist", f"is there a {pair[0]} {pair[1]} ?", "no", ())


def _count(rng: np.random.Generator, objects: Sequence[SceneObject]) -> Question | None:
    """The answer is drawn first, among those the scene can give, and only then what to count."""
    groups = {f"{color} objects": _where(objects, "color", color) for color in COLORS}
    groups |= {PLURALS[shape]: _where(objects, "shape", shape) for shape in SHAPES}
    counts = sorted({len(group) for group in groups.values()} & {*range(MAX_COUNT + 1)})
    answer = _pick(rng, counts)
    noun = _pick(rng, [noun for noun, group in groups.items() if len(group) == answer])
    if noun is None:
        return None
    return Question("count", f"how many {noun} are there ?", str(answer), groups[noun])


def _where(objects: Sequence[SceneObject], attribute: str, value: str) -> tuple[int, ...]:
    return tuple(i for i, item in enumerate(objects) if getattr(item, attribute) == value)


def _spatial(rng: np.random.Generator, objects: Sequence[SceneObject]) -> Question | None:
    axis = int(rng.integers(2))
    place = [item.center[axis] for item in objects]
    both = range(len(objects))
    pair = _pick(rng, [(i, j) for i in both for j in both if abs(place[i] - place[j]) >= _APART])
    if pair is None:
        return None
    first, second = pair
    before = place[first] < place[second]
    sides, of = (("left", "right"), " of") if axis == 0 else (("above", "below"), "")
    if rng.random() < _CHOICES:
        relation, answer = f"{sides[0]} or {sides[1]}", sides[0] if before else sides[1]
    else:
        side = int(rng.integers(2))
        relation, answer = sides[side], "yes" if before == (side == 0) else "no"
    text = f"is the {_name(objects[first])} {relation}{of} the {_name(objects[second])} ?"
    return Question("spatial", text, answer, pair)


def _two_hop(rng: np.random.Generator, objects: Sequence[SceneObject]) -> Question | None:
    """About an object that is not named, only said to be beside one that is."""
    asked = str(rng.choice(["color", "shape", "number", "letter"]))
    characters = {"number": DIGITS, "letter": LETTERS}.get(asked)
    pick = _pick(
        rng,
        [
            (anchor, side, target)
            for anchor in range(len(objects))
            for side in _SIDES
            if (target := _beside(objects, anchor, side)) is not None
            if characters is None or (objects[target].character or "?") in characters
        ],
    )
    if pick is None:
        return None
    anchor, side, target = pick
    item = objects[target]
    verb, answer = "is", item.color if asked == "color" else item.shape
    if characters is not None:
        verb, answer = "is on", str(item.character)
    text = f"what {asked} {verb} the object {side} the {_name(objects[anchor])} ?"
    return Question("two_hop", text, answer, (anchor, target))


# What a side is called, the axis along which it lies, and which way.
_SIDES = {"left of": (0, -1), "right of": (0, 1), "above": (1, -1), "below": (1, 1)}


def _beside(objects: Sequence[SceneObject], anchor: int, side: str) -> int | None:
    """The nearest object within 45 degrees of that side, where no reading of the words differs."""
    axis, way = _SIDES[side]
    here = objects[anchor].center
    near: list[tuple[float, float, int]] = []
    for index, item in enumerate(objects):
        along = way * (item.center[axis] - here[axis])
        off = abs(item.center[1 - axis] - here[1 - axis])
        if index != anchor and along > 0 and off <= along:
            near.append((math.hypot(along, off), off, index))
    near.sort()
    if not near or near[0][1] > _BESIDE or (near[1:] and near[1][0] < near[0][0] + _CLEAR):
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
