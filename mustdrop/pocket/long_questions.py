"""Questions whose answer is a list: the objects of a row, or the way between two. Knows no model.

An answer has four to nine items and at least eleven words. Each item is about another object than
the last, so that each needs other patches of the image. The order of the items follows from the
scene alone, so every question has exactly one right answer.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from mustdrop.pocket.questions import Question, object_name, pick
from mustdrop.pocket.scenes import COLORS, IMAGE_SIZE, PATCH_SIZE, SHAPES, SceneObject

LONG_TYPES = ("row", "way")
SEPARATOR = " , "
ROWS = ("top", "middle", "bottom")  # thirds of the image
LONG_WORDS = frozenset(
    {*ROWS, *("list", "the", "objects", "of", "row", "from", "left", "to", "right", ".", ",")}
    | {*("go", "up", "down")}
)
FEWEST_ITEMS, MOST_ITEMS = 4, 9

# A patch is the least distance that a vision token can show.
_APART = PATCH_SIZE  # least pixels across between the centres of neighbouring items
_CLIMB = PATCH_SIZE  # least pixels up or down of a step
_INSIDE = PATCH_SIZE / 2  # least pixels between a centre and the edge of a row


def ask_long(
    rng: np.random.Generator,
    objects: Sequence[SceneObject],
    type: str,
    fewest: int = FEWEST_ITEMS,
) -> Question | None:
    """Draw a question of a long type about the objects; None if the draw allows no such question.

    Args:
        rng: Generator of the draw.
        objects: Objects of the scene.
        type: One of ``LONG_TYPES``.
        fewest: Least number of items of the answer; training begins with short ones.

    Returns:
        The question; its targets are the objects in the order of the answer. For a way, the
        object where it begins comes first.

    Raises:
        ValueError: If the type is unknown or ``fewest`` is not in [1, 9].
    """
    if not 1 <= fewest <= MOST_ITEMS:
        raise ValueError(f"fewest must be in [1, {MOST_ITEMS}], got {fewest}")
    if type == "row":
        return _row(rng, objects, fewest)
    if type == "way":
        return _way(rng, objects, fewest)
    raise ValueError(f"type must be one of {', '.join(LONG_TYPES)}, got {type!r}")


def items_right(given: str, expected: str) -> float:
    """Share of the expected items that an answer has in the right order.

    It is the length of the longest common subsequence of both lists, over the length of the longer
    list, so that a missing item costs one item and a superfluous item costs one item.
    """
    lists = [[item.strip() for item in text.split(SEPARATOR.strip())] for text in (given, expected)]
    right = [0] * (len(lists[1]) + 1)  # lengths for the items read so far, per expected item
    for item in lists[0]:
        before = list(right)
        for index, other in enumerate(lists[1]):
            same = before[index] + 1
            right[index + 1] = same if item == other else max(before[index + 1], right[index])
    return right[-1] / max(map(len, lists))


def named_objects(text: str) -> list[str]:
    """Objects that a text names by colour and shape, in its order."""
    words = text.replace(SEPARATOR.strip(), " ").split()
    return [
        f"{color} {shape}"
        for color, shape in pairwise(words)
        if color in COLORS and shape in SHAPES
    ]


def _row(rng: np.random.Generator, objects: Sequence[SceneObject], fewest: int) -> Question | None:
    """Draw a third of the image and list its objects from left to right."""
    row = int(rng.integers(len(ROWS)))
    height = IMAGE_SIZE / len(ROWS)
    edges = row * height, (row + 1) * height
    across = [item.center[0] for item in objects]
    down = [item.center[1] for item in objects]
    if any(abs(y - edge) < _INSIDE for y in down for edge in edges):
        return None
    inside = [i for i, y in enumerate(down) if edges[0] < y < edges[1]]
    listed = sorted(inside, key=across.__getitem__)
    if not fewest <= len(listed) <= MOST_ITEMS or not _spread(across, listed):
        return None
    text = f"list the objects of the {ROWS[row]} row from left to right ."
    answer = SEPARATOR.join(object_name(objects[i]) for i in listed)
    return Question("row", text, answer, tuple(listed))


def _way(rng: np.random.Generator, objects: Sequence[SceneObject], fewest: int) -> Question | None:
    """Draw two objects; the way leads over all objects between them across, one after another.

    An item says whether the next object is higher or lower than the last, and which object it is.
    """
    across = [item.center[0] for item in objects]
    down = [item.center[1] for item in objects]
    order = sorted(range(len(objects)), key=across.__getitem__)
    ways = [
        order[start:stop]
        for start in range(len(order))
        for stop in range(start + fewest + 1, min(start + MOST_ITEMS + 1, len(order)) + 1)
        # Also objects just outside must be apart, or it would not be seen that they are outside.
        if _spread(across, order[max(start - 1, 0) : stop + 1])
        and all(abs(down[i] - down[j]) >= _CLIMB for i, j in pairwise(order[start:stop]))
    ]
    length = pick(rng, sorted({len(way) for way in ways}))
    way = pick(rng, [way for way in ways if len(way) == length])
    if way is None:
        return None
    if rng.random() < 0.5:
        way = way[::-1]
    steps = [
        f"{'down' if down[j] > down[i] else 'up'} {object_name(objects[j])}"
        for i, j in pairwise(way)
    ]
    first, last = (object_name(objects[i]) for i in (way[0], way[-1]))
    text = f"go from the {first} to the {last} ."
    return Question("way", text, SEPARATOR.join(steps), tuple(way))


def _spread(across: Sequence[float], listed: Sequence[int]) -> bool:
    """Whether neighbouring items are far enough apart for their order to be seen."""
    return all(abs(across[i] - across[j]) >= _APART for i, j in pairwise(listed))
