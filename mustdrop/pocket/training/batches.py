"""Training batches: scenes, several questions each, and every label a generator can give.

A batch is a function of the seed, the stage's number and the step alone. There is no state to
save, and a run that starts again at step 700 sees what it would have seen. Knows no model.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.utils.data import Dataset

from mustdrop.pocket.font import CHARACTERS
from mustdrop.pocket.model import PAD, TOKEN_IDS
from mustdrop.pocket.questions import QUESTION_TYPES, Question, ask
from mustdrop.pocket.scenes import (
    COLORS,
    GRID,
    IMAGE_SIZE,
    SHAPES,
    Scene,
    SceneObject,
    Stream,
    generator,
    scene,
)
from mustdrop.pocket.training.team import Team

ALONE = Team()
WORDS = 14  # the longest question, "ASSISTANT:" and the answer
PATCH_CLASSES = (len(COLORS) + 1, len(SHAPES) + 1, len(CHARACTERS) + 1)  # 0 is none
PAIRS = len(COLORS) * len(SHAPES)
CENSUS = PAIRS + len(CHARACTERS)

_STAGE = 10**9  # indices that one stage may use


@dataclass(frozen=True, eq=False)
class Batch:
    """Images, the vision tokens kept of each, and what is known about them.

    Attributes:
        pixels: The images.
        kept: Patches the model sees, ascending.
        slots: Position of each kept patch from the image's start on: its own, or counted anew.
        length: Positions that the image takes up: 576, or as many as are kept.
        patch_labels: Colour, shape and character of each kept patch's object; 0 is none.
        patch_centers: Centre of that object, -1 to 1 across and down; 0 on background.
        census: Which pairs of colour and shape, and which characters, are in the image.
        questions: Words of the questions, "ASSISTANT:", the answer, padding.
        ends: Where "ASSISTANT:" stands, where the answer is predicted.
        answers: Token of the answer.
        types: Index of the question's type.
        mentions: Where the question's noun phrases end, two at most; an object that is not named
            counts as mentioned at the question mark, where all is known of it.
        mention_centers: Centre of the object meant there.
        mention_weights: 1 where there is one, else 0.
    """

    pixels: UInt8[Tensor, "images 192 192 3"]
    kept: Int[Tensor, "images kept"]
    slots: Int[Tensor, "images kept"]
    length: Int[Tensor, " images"]
    patch_labels: Int[Tensor, "images kept 3"]
    patch_centers: Float[Tensor, "images kept 2"]
    census: Float[Tensor, "images kinds"]
    questions: Int[Tensor, "images questions words"]
    ends: Int[Tensor, "images questions"]
    answers: Int[Tensor, "images questions"]
    types: Int[Tensor, "images questions"]
    mentions: Int[Tensor, "images questions 2"]
    mention_centers: Float[Tensor, "images questions 2 2"]
    mention_weights: Float[Tensor, "images questions 2"]

    def to(self, device: torch.device) -> "Batch":
        return Batch(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})


class Batches(Dataset[Batch]):
    """The batches of one training stage, by step.

    Args:
        seed: Of the whole training.
        stage: The stage's number; stages share no scene.
        steps: How many there are.
        images: Per batch.
        questions: Per image; 0 leaves those fields empty.
        objects: Fewest and most per scene.
        tokens: Vision tokens kept; each batch draws one of these counts.
        compact: Share of the batches in which they are counted anew.
        question_weights: How often each question type is asked, relative to the others.
        team: Whose share of a step's images a batch holds.
    """

    def __init__(
        self,
        seed: int,
        stage: int,
        steps: int,
        images: int,
        questions: int,
        objects: tuple[int, int],
        tokens: Sequence[int],
        compact: float,
        question_weights: Mapping[str, float],
        team: Team = ALONE,
    ):
        if images % team.size:
            raise ValueError(f"{team.size} processes cannot share {images} images evenly")
        self.team = team
        self.seed, self.first, self.steps = seed, stage * _STAGE, steps
        self.images, self.questions = images, questions
        self.objects, self.tokens, self.compact = objects, tuple(tokens), compact
        shares = np.array([question_weights[type] for type in QUESTION_TYPES], float)
        self.shares = shares / shares.sum()

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> Batch:
        if not 0 <= step < self.steps:
            raise IndexError(f"step must be in [0, {self.steps}), got {step}")
        first = self.first + step * self.images
        draws = generator(self.seed, first, Stream.TOKENS, attempt=1)
        tokens, compact = int(draws.choice(self.tokens)), bool(draws.random() < self.compact)
        mine = range(first + self.team.rank, first + self.images, self.team.size)
        rows = [self._row(index, tokens, compact) for index in mine]
        return Batch(*(torch.from_numpy(np.stack(column)) for column in zip(*rows, strict=True)))

    def _row(self, index: int, tokens: int, compact: bool) -> tuple[np.ndarray, ...]:
        """One image's share of a batch, in the order of the batch's fields."""
        drawn = scene(self.seed, index, *self.objects)
        owner = drawn.patch_owner.ravel()
        kept = _objects_first(generator(self.seed, index, Stream.TOKENS), owner, tokens)
        rng = generator(self.seed, index, Stream.QUESTION)
        asked = [self._ask(rng, drawn.objects) for _ in range(self.questions)]
        slots, length = (np.arange(tokens), tokens) if compact else (kept, GRID**2)
        told = (drawn.pixels, kept, slots, np.array(length))
        return (*told, *_seen(drawn, owner[kept]), *_asked(drawn.objects, asked))

    def _ask(self, rng: np.random.Generator, objects: Sequence[SceneObject]) -> Question:
        """A question of a random type; another type where the scene allows none of it."""
        question = None
        while question is None:
            question = ask(rng, objects, str(rng.choice(QUESTION_TYPES, p=self.shares)))
        return question


def _objects_first(
    rng: np.random.Generator, owner: Int[np.ndarray, " patches"], tokens: int
) -> Int[np.ndarray, " kept"]:
    """All patches with objects in them, then background at random, up to ``tokens`` of them."""
    draw = rng.random(GRID**2)
    return np.sort(np.argsort(draw - (owner >= 0))[:tokens])


def _seen(scene: Scene, owner: Int[np.ndarray, " kept"]) -> tuple[np.ndarray, ...]:
    """Labels of the patches and of the whole image."""
    colors, shapes = list(COLORS), list(SHAPES)
    labels = np.zeros((len(scene.objects) + 1, 3), np.int64)  # the last row: background
    centers = np.zeros((len(scene.objects) + 1, 2), np.float32)
    census = np.zeros(CENSUS, np.float32)
    for index, item in enumerate(scene.objects):
        color, shape = colors.index(item.color), shapes.index(item.shape)
        census[color * len(shapes) + shape] = 1
        labels[index, :2] = color + 1, shape + 1
        centers[index] = _center(item)
        if item.character:
            character = CHARACTERS.index(item.character)
            census[PAIRS + character] = 1
            labels[index, 2] = character + 1
    return labels[owner], centers[owner], census


def _asked(objects: Sequence[SceneObject], asked: Sequence[Question]) -> tuple[np.ndarray, ...]:
    """Words, answers and groundings of the questions."""
    words = np.full((len(asked), WORDS), PAD, np.int64)
    ends, answers, types = np.zeros((3, len(asked)), np.int64)
    mentions = np.zeros((len(asked), 2), np.int64)
    centers = np.zeros((len(asked), 2, 2), np.float32)
    weights = np.zeros((len(asked), 2), np.float32)
    for row, question in enumerate(asked):
        text = [*question.text.split(), "ASSISTANT:", question.answer]
        words[row, : len(text)] = [TOKEN_IDS[word] for word in text]
        ends[row], answers[row] = len(text) - 2, TOKEN_IDS[question.answer]
        types[row] = QUESTION_TYPES.index(question.type)
        for place, (word, index) in enumerate(_mentions(question)):
            mentions[row, place] = word
            centers[row, place] = _center(objects[index])
            weights[row, place] = 1
    return words, ends, answers, types, mentions, centers, weights


def _mentions(question: Question) -> list[tuple[int, int]]:
    """Which word settles which object is meant. What is counted, or absent, has no one place."""
    if question.type == "count" or not question.targets:
        return []
    last = len(question.text.split()) - 2  # before the question mark
    if question.type == "spatial":
        return [(3, question.targets[0]), (last, question.targets[1])]  # is the red BUS ...
    if question.type == "two_hop":
        return [(last, question.targets[0]), (last + 1, question.targets[1])]  # of the red BUS ?
    return [(last, question.targets[0])]


def _center(item: SceneObject) -> tuple[float, float]:
    """From -1 to 1 across and down."""
    across, down = item.center
    return across / IMAGE_SIZE * 2 - 1, down / IMAGE_SIZE * 2 - 1
