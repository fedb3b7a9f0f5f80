"""Batches of PocketSmol's training: scenes, questions as tokens, and labels known from generation.

A batch depends only on the seed, the stage's number and the step, like those of PocketLLaVA. Knows
no model.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from mustdrop.pocket.long_questions import LONG_TYPES, ask_long
from mustdrop.pocket.questions import Question, ask
from mustdrop.pocket.scenes import GRID, PATCH_SIZE, Scene, SceneObject, Stream, generator, scene
from mustdrop.pocket.training.batches import center, image_labels, noun_mentions, objects_first
from mustdrop.pocket.training.smol.recipe import TYPES, SmolStage
from mustdrop.pocket.training.smol.text import ChatText, Tokens

IGNORED = -100  # target of a token after which no answer token comes
_STAGE = 10**9  # number of scene indices reserved for one stage
_TRIES = 40  # draws of a question before the scene is drawn again
_MENTIONS = 12  # most objects whose centre is known behind some word of a question
_ANSWERED = {"color": 0, "shape": 0, "number": 0, "letter": 0, "two_hop": 1}  # the answer's target


@dataclass(frozen=True, eq=False)
class SmolBatch:
    """Images, the vision tokens kept of each, and questions with their answers.

    Attributes:
        pixels: Images.
        kept: Indices of the patches that the language model gets, ascending.
        slots: Position of each kept patch, counted from the image's start: the original position or
            its rank among the kept patches.
        length: Number of positions that the image takes up: 576, or the number of kept patches.
        patch_labels: Colour, shape and character of each kept patch's object; 0 is none.
        patch_centers: Centre of that object, -1 to 1 across and down; 0 on background.
        patch_marks: 1 for the one patch of each object that is nearest to its centre, else 0.
        questions: Tokens of question, answer and end, then padding.
        targets: Token of the answer, or its end, that comes after each token; -100 for none.
        types: Index of the question's type.
        mentions: Index of each token behind which the centre of an object is known.
        mention_centers: Centre of that object.
        mention_weights: 1 for each mention, 0 for padding.
    """

    pixels: UInt8[Tensor, "images 192 192 3"]
    kept: Int[Tensor, "images kept"]
    slots: Int[Tensor, "images kept"]
    length: Int[Tensor, " images"]
    patch_labels: Int[Tensor, "images kept 3"]
    patch_centers: Float[Tensor, "images kept 2"]
    patch_marks: Float[Tensor, "images kept"]
    questions: Int[Tensor, "images questions words"]
    targets: Int[Tensor, "images questions words"]
    types: Int[Tensor, "images questions"]
    mentions: Int[Tensor, "images questions 12"]
    mention_centers: Float[Tensor, "images questions 12 2"]
    mention_weights: Float[Tensor, "images questions 12"]


def draw_batch(seed: int, number: int, stage: SmolStage, step: int, text: ChatText) -> SmolBatch:
    """Draw the batch of a step.

    Args:
        seed: Seed of the whole training.
        number: Number of the stage; stages share no scene.
        stage: Stage.
        step: Number of the step in the stage.
        text: Tokenizer of the questions.
    """
    most = max(stage.images, stage.long_images)
    first = number * _STAGE + step * most
    draws = generator(seed, first, Stream.TOKENS, attempt=1)
    tokens = int(draws.choice(stage.tokens))
    compact, long = draws.random(2) < (stage.compact, stage.long)
    images = stage.long_images if long else stage.images
    images = max(1, images // 2) if tokens == GRID**2 else images
    rows = [
        _row(seed, first + image, stage, tokens, bool(compact), bool(long), text)
        for image in range(images)
    ]
    image_fields, question_fields = zip(*rows, strict=True)
    columns = [torch.from_numpy(np.stack(column)) for column in zip(*image_fields, strict=True)]
    questions = [question for row in question_fields for question in row]
    return SmolBatch(*columns, *_pad(questions, images))


@dataclass(frozen=True)
class _TokenizedQuestion:
    """A question with its tokens, and pairs of a token's index and the centre known behind it."""

    tokens: Tokens
    type: str
    mentions: list[tuple[int, tuple[float, float]]]


def _row(
    seed: int,
    index: int,
    stage: SmolStage,
    tokens: int,
    compact: bool,
    long: bool,
    text: ChatText,
) -> tuple[tuple[np.ndarray, ...], list[_TokenizedQuestion]]:
    """Fields of one image, in the order of the batch's fields, and its questions."""
    drawn, questions = _scene_with_questions(seed, index, stage, long)
    owner = drawn.patch_owner.ravel()
    kept = objects_first(generator(seed, index, Stream.TOKENS), owner, tokens)
    slots, length = (np.arange(tokens), tokens) if compact else (kept, GRID**2)
    labels, centers, _ = image_labels(drawn, owner[kept])
    tokenized = [_tokenize(drawn.objects, question, text) for question in questions]
    marks = central_patches(drawn)[kept]
    return (drawn.pixels, kept, slots, np.array(length), labels, centers, marks), tokenized


def central_patches(drawn: Scene) -> Float[np.ndarray, " patches"]:
    """1 for the one patch of each object that is nearest to the object's centre, else 0."""
    owner = drawn.patch_owner.ravel()
    middles = (np.stack(np.divmod(np.arange(GRID**2), GRID)[::-1], 1) + 0.5) * PATCH_SIZE
    marks = np.zeros(GRID**2, np.float32)
    for index, item in enumerate(drawn.objects):
        patches = np.flatnonzero(owner == index)
        distances = np.linalg.norm(middles[patches] - item.center, axis=1)
        marks[patches[distances.argmin()]] = 1
    return marks


def _scene_with_questions(
    seed: int, index: int, stage: SmolStage, long: bool
) -> tuple[Scene, list[Question]]:
    """Draw scenes until one allows all questions; each gets ``_TRIES`` draws of type and words."""
    number = stage.long_questions if long else stage.questions
    kinds = [kind for kind in TYPES if (kind in LONG_TYPES) == long]
    weights = np.array([stage.question_weights.get(kind, 1.0) for kind in kinds])
    for attempt in count():
        drawn = scene(seed, index, *stage.fewest_most, attempt)
        rng = generator(seed, index, Stream.QUESTION, attempt)
        questions: list[Question] = []
        for _ in range(number * _TRIES):
            if len(questions) == number:
                break
            kind = str(rng.choice(kinds, p=weights / weights.sum()))
            question = (
                ask_long(rng, drawn.objects, kind, stage.fewest_items)
                if long
                else ask(rng, drawn.objects, kind)
            )
            if question is not None:
                questions.append(question)
        if len(questions) == number:
            return drawn, questions
    raise AssertionError("count() ended")


def _tokenize(
    objects: Sequence[SceneObject], question: Question, text: ChatText
) -> _TokenizedQuestion:
    tokens = text.tokens(question.text, question.answer)
    if question.type in LONG_TYPES:
        listed = question.targets if question.type == "row" else question.targets[1:]
        words = question.answer.split()
        starts = [0, *(i + 1 for i, word in enumerate(words) if word == ",")]
        known = [(tokens.answer[start], i) for start, i in zip(starts, listed, strict=True)]
        if question.type == "way":  # go from the red BUS to the blue CIRCLE .
            ends = (tokens.question[4], question.targets[0]), (tokens.question[8], listed[-1])
            known = [*ends, *known]
    else:
        known = [(tokens.question[word], i) for word, i in noun_mentions(question)]
        if question.type in _ANSWERED:
            known.append((tokens.start, question.targets[_ANSWERED[question.type]]))
    return _TokenizedQuestion(
        tokens, question.type, [(token, center(objects[i])) for token, i in known]
    )


def _pad(rows: Sequence[_TokenizedQuestion], images: int) -> list[Tensor]:
    """Fields of all questions, padded to the longest."""
    words = max((len(row.tokens.ids) for row in rows), default=0)
    ids = torch.zeros(len(rows), words, dtype=torch.long)
    targets = torch.full_like(ids, IGNORED)
    known = torch.zeros(len(rows), _MENTIONS, dtype=torch.long)
    centers = torch.zeros(len(rows), _MENTIONS, 2)
    weights = torch.zeros(len(rows), _MENTIONS)
    for index, row in enumerate(rows):
        tokens, n = row.tokens, len(row.mentions)
        ids[index, : len(tokens.ids)] = torch.tensor(tokens.ids)
        answer = slice(tokens.start, len(tokens.ids) - 1)
        targets[index, answer] = torch.tensor(tokens.ids[tokens.start + 1 :])
        if n:
            known[index, :n] = torch.tensor([token for token, _ in row.mentions])
            centers[index, :n] = torch.tensor([point for _, point in row.mentions])
            weights[index, :n] = 1
    types = torch.tensor([TYPES.index(row.type) for row in rows], dtype=torch.long)
    fields = (ids, targets, types, known, centers, weights)
    return [field.unflatten(0, (images, len(rows) // images)) for field in fields]
