"""PocketVQA: named splits of generated scenes with one question each. Knows no model.

Each split has a seed of its own, so splits share no draw. Question types are balanced: every eight
indices from a multiple of eight on hold each type once, in random order.

    name                  objects  for
    crowded_test          10 - 16  results (the default)
    crowded_calibration   10 - 16  choosing thresholds
    easy_test              2 - 8   results; a text-blind saliency map nearly solves it
    easy_calibration       2 - 8   choosing thresholds
"""

from dataclasses import dataclass, replace
from itertools import count
from types import MappingProxyType

import numpy as np
from jaxtyping import Bool, Int
from PIL import Image

from mustdrop.pocket.questions import QUESTION_TYPES, Question, ask, exist
from mustdrop.pocket.scenes import Scene, SceneObject, Stream, generator, scene


@dataclass(frozen=True)
class Split:
    """Where a split's samples come from.

    Attributes:
        seed: The split's own; no two splits, and no training, share one.
        fewest: Objects in its emptiest scenes.
        most: Objects in its fullest scenes.
        size: Its indices are ``range(size)``.
    """

    seed: int
    fewest: int
    most: int
    size: int = 10_000


DEFAULT_SPLIT = "crowded_test"
SPLITS = MappingProxyType(
    {
        "crowded_test": Split(seed=41, fewest=10, most=16),
        "crowded_calibration": Split(seed=42, fewest=10, most=16),
        "easy_test": Split(seed=43, fewest=2, most=8),
        "easy_calibration": Split(seed=44, fewest=2, most=8),
    }
)
TRAINING_SEED = 51
VALIDATION_SEED = 52


@dataclass(frozen=True, eq=False)
class Sample:
    """One image, one question, and where on the image its answer is.

    Attributes:
        split: The split's name.
        index: Its place in the split.
        image: 192 x 192 RGB.
        question: What is asked, as words with a space between them.
        answer: One word.
        type: One of ``QUESTION_TYPES``; a pair's kind in the yes/no pairs.
        targets: The objects asked about, by index; none where the answer is that there is none.
        objects: All objects of the scene.
        patch_owner: Per patch, the object it shows (an index), or -1.
        target_patches: The patches of the objects asked about.
        object_patches: The patches of any object.
    """

    split: str
    index: int
    image: Image.Image
    question: str
    answer: str
    type: str
    targets: tuple[int, ...]
    objects: tuple[SceneObject, ...]
    patch_owner: Int[np.ndarray, "24 24"]
    target_patches: Bool[np.ndarray, "24 24"]
    object_patches: Bool[np.ndarray, "24 24"]


def sample(split: str, index: int) -> Sample:
    """The sample at an index of a split; the same one on every machine.

    Raises:
        ValueError: If the split is unknown or the index is not one of its indices.
    """
    source = _source(split)
    if not 0 <= index < source.size:
        raise ValueError(f"index must be in [0, {source.size}) for {split}, got {index}")
    return _sample(split, index, *_draw(source, index))


def pope(split: str, index: int) -> Sample:
    """Yes/no pairs in the manner of POPE (arXiv:2305.10355): of scene i, 2i is a yes, 2i + 1 a no.

    The no of every other scene is adversarial, the others' are not; ``type`` tells which the pair
    is, "adversarial" or "random".

    Raises:
        ValueError: If the split is unknown or the index is not in ``range(2 * size)``.
    """
    source = _source(split)
    if not 0 <= index < 2 * source.size:
        raise ValueError(f"index must be in [0, {2 * source.size}) for {split}, got {index}")
    of, absent = divmod(index, 2)
    adversarial = of % 2 == 0
    for attempt in count():
        drawn = scene(source.seed, of, source.fewest, source.most, attempt)
        rng = generator(source.seed, index, Stream.PAIR)
        asked = exist(rng, drawn.objects, not absent, adversarial)
        # the scene has to allow both questions of the pair
        if asked is not None and exist(rng, drawn.objects, False, adversarial) is not None:
            kind = "adversarial" if adversarial else "random"
            return _sample(split, index, drawn, replace(asked, type=kind))
    raise AssertionError("count() ended")


def _source(split: str) -> Split:
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
    return SPLITS[split]


def _sample(split: str, index: int, drawn: Scene, question: Question) -> Sample:
    return Sample(
        split=split,
        index=index,
        image=drawn.image,
        question=question.text,
        answer=question.answer,
        type=question.type,
        targets=question.targets,
        objects=drawn.objects,
        patch_owner=drawn.patch_owner,
        target_patches=drawn.patches(question.targets),
        object_patches=drawn.patch_owner >= 0,
    )


def _draw(source: Split, index: int) -> tuple[Scene, Question]:
    """Scenes, until one allows a question of the type that is this index's turn."""
    turn, place = divmod(index, len(QUESTION_TYPES))
    order = generator(source.seed, turn, Stream.TYPE).permutation(QUESTION_TYPES)
    for attempt in count():
        drawn = scene(source.seed, index, source.fewest, source.most, attempt)
        # The same draws meet every attempt's scene: a scene that allows no "no", say, is replaced
        # by one that does, and rejections leave the answers as evenly spread as they were.
        question = ask(generator(source.seed, index, Stream.QUESTION), drawn.objects, order[place])
        if question is not None:
            return drawn, question
    raise AssertionError("count() ended")
