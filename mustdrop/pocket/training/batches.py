"""Training batches: scenes, several questions about each, and all labels known from generation.

A batch depends only on the seed, the stage's number and the step. So there is no state to save, and
a run that restarts at step 700 gets the same batches as an uninterrupted run. Knows no model.
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
from mustdrop.pocket.training.team import ALONE, Team

WORDS = 14  # tokens of the longest question with "ASSISTANT:" and the answer
PATCH_CLASSES = (len(COLORS) + 1, len(SHAPES) + 1, len(CHARACTERS) + 1)  # 0 is none
PAIRS = len(COLORS) * len(SHAPES)
CENSUS = PAIRS + len(CHARACTERS)

_STAGE = 10**9  # number of scene indices reserved for one stage


@dataclass(frozen=True, eq=False)
class Batch:
    """Images, the vision tokens kept of each, and their labels.

    Attributes:
        pixels: Images.
        kept: Indices of the patches that the model gets, ascending.
        slots: Position of each kept patch, counted from the image's start: the original position or
            its rank among the kept patches.
        length: Number of positions that the image takes up: 576, or the number of kept patches.
        patch_labels: Colour, shape and character of each kept patch's object; 0 is none.
        patch_centers: Centre of that object, -1 to 1 across and down; 0 on background.
        census: Whether each pair of colour and shape, and each character, is in the image.
        questions: Tokens of the questions, "ASSISTANT:", the answer, padding.
        ends: Index of "ASSISTANT:", where the answer is predicted.
        answers: Token of the answer.
        types: Index of the question's type.
        mentions: Index of the last word of each noun phrase, two at most; an object that is not
            named has the index of the question mark, where all words about it have been read.
        mention_centers: Centre of the object of each noun phrase.
        mention_weights: 1 for each noun phrase, 0 for padding.
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
    """Batches of one training stage, indexed by step.

    Args:
        seed: Seed of the whole training.
        stage: Number of the stage; stages share no scene.
        steps: Number of steps.
        images: Number of images per batch.
        questions: Number of questions per image; 0 leaves the fields of questions empty.
        objects: Least and largest number of objects per scene.
        tokens: Numbers of vision tokens kept; each batch draws one of them.
        compact: Share of the batches in which the kept tokens are renumbered.
        question_weights: Relative frequency of each question type.
        team: Process whose share of a step's images a batch holds.
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
            raise ValueError(
                f"images must be a multiple of the number of processes, {team.size}, got {images}"
            )
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
        indices = range(first + self.team.rank, first + self.images, self.team.size)
        rows = [self._row(index, tokens, compact) for index in indices]
        return Batch(*(torch.from_numpy(np.stack(column)) for column in zip(*rows, strict=True)))

    def _row(self, index: int, tokens: int, compact: bool) -> tuple[np.ndarray, ...]:
        """Fields of one image, in the order of the batch's fields."""
        drawn = scene(self.seed, index, *self.objects)
        owner = drawn.patch_owner.ravel()
        kept = objects_first(generator(self.seed, index, Stream.TOKENS), owner, tokens)
        rng = generator(self.seed, index, Stream.QUESTION)
        questions = [self._draw_question(rng, drawn.objects) for _ in range(self.questions)]
        slots, length = (np.arange(tokens), tokens) if compact else (kept, GRID**2)
        image_fields = (drawn.pixels, kept, slots, np.array(length))
        labels = image_labels(drawn, owner[kept])
        return (*image_fields, *labels, *_question_fields(drawn.objects, questions))

    def _draw_question(self, rng: np.random.Generator, objects: Sequence[SceneObject]) -> Question:
        """Draw a question of a random type; draw the type again if the scene does not allow it."""
        question = None
        while question is None:
            question = ask(rng, objects, str(rng.choice(QUESTION_TYPES, p=self.shares)))
        return question


def objects_first(
    rng: np.random.Generator, owner: Int[np.ndarray, " patches"], tokens: int
) -> Int[np.ndarray, " kept"]:
    """Choose ``tokens`` patches: those with objects first, then background, each at random."""
    draw = rng.random(GRID**2)
    return np.sort(np.argsort(draw - (owner >= 0))[:tokens])


def image_labels(scene: Scene, owner: Int[np.ndarray, " kept"]) -> tuple[np.ndarray, ...]:
    """Labels of the patches and of the whole image."""
    colors, shapes = list(COLORS), list(SHAPES)
    labels = np.zeros((len(scene.objects) + 1, 3), np.int64)  # the last row is for background
    centers = np.zeros((len(scene.objects) + 1, 2), np.float32)
    census = np.zeros(CENSUS, np.float32)
    for index, item in enumerate(scene.objects):
        color, shape = colors.index(item.color), shapes.index(item.shape)
        census[color * len(shapes) + shape] = 1
        labels[index, :2] = color + 1, shape + 1
        centers[index] = center(item)
        if item.character:
            character = CHARACTERS.index(item.character)
            census[PAIRS + character] = 1
            labels[index, 2] = character + 1
    return labels[owner], centers[owner], census


def _question_fields(
    objects: Sequence[SceneObject], questions: Sequence[Question]
) -> tuple[np.ndarray, ...]:
    """Words, answers and mentioned objects of the questions."""
    count = len(questions)
    words = np.full((count, WORDS), PAD, np.int64)
    ends, answers, types = np.zeros((3, count), np.int64)
    mentions = np.zeros((count, 2), np.int64)
    centers = np.zeros((count, 2, 2), np.float32)
    weights = np.zeros((count, 2), np.float32)
    for row, question in enumerate(questions):
        text = [*question.text.split(), "ASSISTANT:", question.answer]
        words[row, : len(text)] = [TOKEN_IDS[word] for word in text]
        ends[row], answers[row] = len(text) - 2, TOKEN_IDS[question.answer]
        types[row] = QUESTION_TYPES.index(question.type)
        for column, (word, index) in enumerate(noun_mentions(question)):
            mentions[row, column] = word
            centers[row, column] = center(objects[index])
            weights[row, column] = 1
    return words, ends, answers, types, mentions, centers, weights


def noun_mentions(question: Question) -> list[tuple[int, int]]:
    """Pairs of a word's index and the index of the object that is known from this word on.

    Questions about counted or absent objects have none, as no single object is meant.
    """
    if question.type == "count" or not question.targets:
        return []
    last = len(question.text.split()) - 2  # before the question mark
    if question.type == "spatial":
        return [(3, question.targets[0]), (last, question.targets[1])]  # is the red BUS ...
    if question.type == "two_hop":
        return [(last, question.targets[0]), (last + 1, question.targets[1])]  # of the red BUS ?
    return [(last, question.targets[0])]


def center(item: SceneObject) -> tuple[float, float]:
    """Centre of an object, from -1 to 1 across and down."""
    across, down = item.center
    return across / IMAGE_SIZE * 2 - 1, down / IMAGE_SIZE * 2 - 1
