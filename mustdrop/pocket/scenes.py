"""Scenes of small coloured shapes, drawn from a seed and an index. Knows no questions and no model.

A scene is an image of 192 x 192 pixels: a muted gradient with noise, and objects that never touch.
Each pair of colour and shape occurs at most once. Squares, circles and buses may carry a digit or a
letter.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from jaxtyping import Bool, Int, UInt8
from PIL import Image, ImageDraw

from mustdrop.pocket.font import CHARACTERS, GLYPH_HEIGHT, GLYPH_WIDTH, GLYPHS

IMAGE_SIZE = 192
PATCH_SIZE = 8
GRID = IMAGE_SIZE // PATCH_SIZE
COLORS = {
    "red": (220, 40, 40),
    "green": (40, 170, 60),
    "blue": (50, 80, 225),
    "yellow": (235, 220, 50),
    "purple": (150, 50, 190),
    "orange": (245, 140, 30),
    "cyan": (60, 215, 225),
}
SHAPES: tuple[str, ...] = ("circle", "square", "triangle", "diamond", "cross", "bus")
MAX_OBJECTS = 20  # a layout of more objects is not certain to exist

Ink = int | tuple[int, int, int]

_CARRIERS = ("circle", "square", "bus")
_CARRYING = 0.75  # share of the carriers with a character
_GAP = 4  # least pixels between the boxes of two objects
_MIN_PIXELS = 4  # least pixels of an object in a patch that shows it
_WHEEL = 3  # radius of a bus's wheels, in pixels


class Stream(IntEnum):
    """Purpose of a generator; separate streams keep one kind of draw from changing another."""

    COUNT = 1
    LAYOUT = 2
    QUESTION = 3
    TYPE = 4
    TOKENS = 5
    PAIR = 6


def generator(seed: int, index: int, stream: Stream, attempt: int = 0) -> np.random.Generator:
    """Create the random generator of one item, independent of all other items.

    Raises:
        ValueError: If a number is negative.
    """
    if min(seed, index, attempt) < 0:
        raise ValueError(f"seed, index and attempt must be >= 0, got {seed}, {index}, {attempt}")
    return np.random.default_rng([seed, index, stream, attempt])


@dataclass(frozen=True)
class SceneObject:
    """One object: its appearance and its box in pixels; ``character`` may be None."""

    color: str
    shape: str
    character: str | None
    left: int
    top: int
    width: int
    height: int

    @property
    def center(self) -> tuple[float, float]:
        """Centre of the box as (across, down), in pixels."""
        return self.left + self.width / 2, self.top + self.height / 2

    def apart(self, other: "SceneObject") -> bool:
        """Whether the distance of the two boxes is at least the gap."""
        return (
            self.left + self.width + _GAP <= other.left
            or other.left + other.width + _GAP <= self.left
            or self.top + self.height + _GAP <= other.top
            or other.top + other.height + _GAP <= self.top
        )


@dataclass(frozen=True, eq=False)
class Scene:
    """Objects, their image, and the object that each patch shows.

    Attributes:
        objects: All objects, exactly as many as were drawn for the scene.
        pixels: Image of the scene.
        patch_owner: Index of the object with most pixels in each patch of 8 x 8 pixels; -1 where no
            object has at least four.
    """

    objects: tuple[SceneObject, ...]
    pixels: UInt8[np.ndarray, "192 192 3"]
    patch_owner: Int[np.ndarray, "24 24"]

    @property
    def image(self) -> Image.Image:
        return Image.fromarray(self.pixels)

    def patches(self, objects: Sequence[int]) -> Bool[np.ndarray, "24 24"]:
        """Whether each patch shows one of the given objects.

        Args:
            objects: Indices of the objects.
        """
        return np.isin(self.patch_owner, list(objects))


def scene(seed: int, index: int, fewest: int, most: int, attempt: int = 0) -> Scene:
    """Draw the scene of an index, with ``fewest`` to ``most`` objects, each number equally likely.

    Each ``attempt`` draws another scene for the same index. All attempts have the same number of
    objects, so that rejecting scenes (for example without a digit) does not change how often each
    number occurs.

    Raises:
        ValueError: If not 1 <= fewest <= most <= 20, or a number is negative.
    """
    if not 1 <= fewest <= most <= MAX_OBJECTS:
        raise ValueError(
            f"the number of objects must satisfy 1 <= fewest <= most <= {MAX_OBJECTS}, "
            f"got {fewest} to {most}"
        )
    count = int(generator(seed, index, Stream.COUNT).integers(fewest, most + 1))
    rng = generator(seed, index, Stream.LAYOUT, attempt)
    objects = _layout(rng, count)
    return Scene(objects, _render(rng, objects), _patch_owner(objects))


def _layout(rng: np.random.Generator, count: int) -> tuple[SceneObject, ...]:
    """Draw exactly ``count`` objects; if one does not fit, the whole layout is drawn again."""
    while True:
        palette = rng.permutation(list(COLORS))[: rng.integers(3, len(COLORS) + 1)]
        shapes = rng.permutation(SHAPES)[: rng.integers(3, len(SHAPES) + 1)]
        pairs = rng.permutation([(color, shape) for color in palette for shape in shapes])
        objects: list[SceneObject] = []
        for color, shape in pairs[:count].tolist():
            item = _add_object(rng, color, shape, objects)
            if item is None:
                break
            objects.append(item)
        if len(objects) == count:
            return tuple(objects)


def _add_object(
    rng: np.random.Generator, color: str, shape: str, others: list[SceneObject]
) -> SceneObject | None:
    """Draw an object that is clear of the others; None if 200 positions were not."""
    carries = shape in _CARRIERS and rng.random() < _CARRYING
    character = CHARACTERS[rng.integers(len(CHARACTERS))] if carries else None
    width, height = _size(rng, shape, carries)
    for _ in range(200):
        left, top = (int(rng.integers(1, IMAGE_SIZE - side)) for side in (width, height))
        candidate = SceneObject(color, shape, character, left, top, width, height)
        if all(candidate.apart(other) for other in others):
            return candidate
    return None


def _size(rng: np.random.Generator, shape: str, carries: bool) -> tuple[int, int]:
    """Width and height in pixels; a carrier is large enough for its character."""
    if shape == "bus":
        return int(rng.integers(26, 33)), int(rng.integers(20, 24))
    smallest, largest = {"circle": (20, 24), "square": (17, 22)}[shape] if carries else (12, 24)
    side = int(rng.integers(smallest, largest + 1))
    return side, side


def _render(
    rng: np.random.Generator, objects: Sequence[SceneObject]
) -> UInt8[np.ndarray, "192 192 3"]:
    base = rng.integers(70, 130, 3)
    muted = (base + base.mean()) / 2
    across, down = rng.uniform(-14, 14, 2)
    axis = np.linspace(-1, 1, IMAGE_SIZE)
    ramp = across * axis[None, :] + down * axis[:, None]
    image = Image.fromarray((ramp[..., None] + muted).astype(np.uint8))
    canvas = ImageDraw.Draw(image)
    for item in objects:
        shade = np.clip(np.array(COLORS[item.color]) + rng.integers(-18, 19, 3), 0, 255)
        red, green, blue = shade.tolist()
        _draw(canvas, item, (red, green, blue), (15, 15, 15))
    noise = rng.integers(-8, 8, (IMAGE_SIZE, IMAGE_SIZE, 1), dtype=np.int16)
    pixels = np.clip(np.asarray(image).astype(np.int16) + noise, 0, 255).astype(np.uint8)
    for item in objects:
        if item.character is not None:
            _write(pixels, item, item.character)
    return pixels


def _write(pixels: UInt8[np.ndarray, "192 192 3"], item: SceneObject, character: str) -> None:
    """Draw the character in the middle of its object, dark on bright colours, bright on dark."""
    body = item.height - (_WHEEL if item.shape == "bus" else 0)
    top = item.top + (body - GLYPH_HEIGHT) // 2
    left = item.left + (item.width - GLYPH_WIDTH) // 2
    window = pixels[top : top + GLYPH_HEIGHT, left : left + GLYPH_WIDTH]
    window[GLYPHS[character]] = 10 if sum(COLORS[item.color]) / 3 > 125 else 245


def _draw(canvas: ImageDraw.ImageDraw, item: SceneObject, body: Ink, wheels: Ink) -> None:
    """Draw the shape of an object.

    The two fills are colours in an image, or the object's index in a map of owners.
    """
    left, top = item.left, item.top
    right, bottom = left + item.width - 1, top + item.height - 1
    middle, centre = (left + right) / 2, (top + bottom) / 2
    if item.shape == "circle":
        canvas.ellipse((left, top, right, bottom), fill=body)
    elif item.shape == "square":
        canvas.rectangle((left, top, right, bottom), fill=body)
    elif item.shape == "triangle":
        canvas.polygon([(middle, top), (right, bottom), (left, bottom)], fill=body)
    elif item.shape == "diamond":
        corners = [(middle, top), (right, centre), (middle, bottom), (left, centre)]
        canvas.polygon(corners, fill=body)
    elif item.shape == "cross":
        inset, drop = item.width // 3, item.height // 3
        canvas.rectangle((left + inset, top, right - inset, bottom), fill=body)
        canvas.rectangle((left, top + drop, right, bottom - drop), fill=body)
    else:
        canvas.rectangle((left, top, right, bottom - _WHEEL), fill=body)
        for axle in (left + 2 * _WHEEL, right - 2 * _WHEEL):
            rim = (axle - _WHEEL, bottom - 2 * _WHEEL, axle + _WHEEL, bottom)
            canvas.ellipse(rim, fill=wheels)


def _patch_owner(objects: Sequence[SceneObject]) -> Int[np.ndarray, "24 24"]:
    # The index len(objects) stands for the background.
    pixels = Image.new("L", (IMAGE_SIZE, IMAGE_SIZE), len(objects))
    canvas = ImageDraw.Draw(pixels)
    for index, item in enumerate(objects):
        _draw(canvas, item, index, index)
    patches = np.asarray(pixels).reshape(GRID, PATCH_SIZE, GRID, PATCH_SIZE).swapaxes(1, 2)
    kinds = len(objects) + 1
    shifted = patches.reshape(GRID**2, -1) + kinds * np.arange(GRID**2)[:, None]
    counts = np.bincount(shifted.ravel(), minlength=kinds * GRID**2).reshape(GRID, GRID, kinds)
    counts = counts[..., :-1]
    return np.where(counts.max(-1) >= _MIN_PIXELS, counts.argmax(-1), -1)
