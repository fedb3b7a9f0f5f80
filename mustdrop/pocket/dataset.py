"""PocketVQA: named splits of generated scenes with one question each. Knows no model.

Each split has a different seed, so splits share no draw. Question types are balanced: each group
of eight indices, starting at a multiple of eight, has each type once, in random order. In the long
splits a group has as many indices as there are long types, two.

    name                  objects  for
    crowded_test          10 - 16  results (the default)
    crowded_calibration   10 - 16  choosing thresholds
    easy_test              2 - 8   results; a text-blind saliency map nearly solves it
    easy_calibration       2 - 8   choosing thresholds
    long_test             10 - 16  long answers, which PocketLLaVA has not learned
    long_calibration      10 - 16  choosing thresholds
"""

from dataclasses import dataclass, replace
from itertools import count
from types import MappingProxyType

import numpy as np
from jaxtyping import Bool, Int
from PIL import Image

from mustdrop.pocket.long_questions import LONG_TYPES, ask_long
from mustdrop.pocket.questions import QUESTION_TYPES, Question, ask, exist
from mustdrop.pocket.scenes import Scene, SceneObject, Stream, generator, scene


@dataclass(frozen=True)
class Split:
    """Parameters that generate the samples of one split.

    Attributes:
        seed: Seed of the draws; no other split, and no training, uses it.
        fewest: Least number of objects in a scene.
        most: Largest number of objects in a scene.
        size: Number of samples; indices are ``range(size)``.
        types: Question types.
    """

    seed: int
    fewest: int
    most: int
    size: int = 10_000
    types: tuple[str, ...] = QUESTION_TYPES


DEFAULT_SPLIT = "crowded_test"
SPLITS = MappingProxyType(
    {
        "crowded_test": Split(seed=41, fewest=10, most=16),
        "crowded_calibration": Split(seed=42, fewest=10, most=16),
        "easy_test": Split(seed=43, fewest=2, most=8),
        "easy_calibration": Split(seed=44, fewest=2, most=8),
    }
)
LONG_SPLITS = MappingProxyType(
    {
        "long_test": Split(seed=45, fewest=10, most=16, types=LONG_TYPES),
        "long_calibration": Split(seed=46, fewest=10, most=16, types=LONG_TYPES),
    }
)
TRAINING_SEED = 51
VALIDATION_SEED = 52


@dataclass(frozen=True, eq=False)
class Sample:
    """One image, one question, and the patches that show its answer.

    Attributes:
        split: Name of the split.
        index: Index of the sample in the split.
        image: RGB image of 192 x 192 pixels.
        question: Words of the question, separated by spaces.
        answer: Answer: one word, or items separated by commas in a long split.
        type: One of the split's types; in the yes/no pairs, "adversarial" or "random".
        targets: Indices of the objects that the question is about; empty if no object fits.
        objects: All objects of the scene.
        patch_owner: Index of the object that each patch shows, or -1.
        target_patches: Whether each patch shows an object that the question is about.
        object_patches: Whether each patch shows any object.
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
    """Generate the sample at an index of a split; it is the same on every machine.

    Raises:
        ValueError: If the split is unknown or the index is out of range.
    """
    source = _source(split)
    if not 0 <= index < source.size:
        raise ValueError(f"index must be in [0, {source.size}) for {split}, got {index}")
    return _sample(split, index, *_draw(source, index))


def pope(split: str, index: int) -> Sample:
    """Generate one question of a yes/no pair in the style of POPE (arXiv:2305.10355).

    Index 2i is the question about scene i with the answer yes, index 2i + 1 the one with no. The
    no questions of even scenes are adversarial, those of odd scenes are not; ``type`` is
    "adversarial" or "random" for both questions of the pair.

    Raises:
        ValueError: If the split is unknown or the index is not in ``range(2 * size)``.
    """
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
    source = SPLITS[split]
    if not 0 <= index < 2 * source.size:
        raise ValueError(f"index must be in [0, {2 * source.size}) for {split}, got {index}")
    scene_index, absent = divmod(index, 2)
    adversarial = scene_index % 2 == 0
    for attempt in count():
        drawn = scene(source.seed, scene_index, source.fewest, source.most, attempt)
        rng = generator(source.seed, index, Stream.PAIR)
        question = exist(rng, drawn.objects, not absent, adversarial)
        # The scene must allow both questions of the pair.
        if question is not None and exist(rng, drawn.objects, False, adversarial) is not None:
            kind = "adversarial" if adversarial else "random"
            return _sample(split, index, drawn, replace(question, type=kind))
    raise AssertionError("count() ended")


def _source(split: str) -> Split:
    splits = {**SPLITS, **LONG_SPLITS}
    if split not in splits:
        raise ValueError(f"split must be one of {', '.join(splits)}, got {split!r}")
    return splits[split]


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
    """Draw scenes until one allows a question of the type of this index."""
    group, position = divmod(index, len(source.types))
    question_type = generator(source.seed, group, Stream.TYPE).permutation(source.types)[position]
    draw = ask_long if question_type in LONG_TYPES else ask
    for attempt in count():
        drawn = scene(source.seed, index, source.fewest, source.most, attempt)
        # Every attempt uses the same question draws. For example, if they ask for the answer "no"
        # and the scene does not allow it, the next scene is tried for the same answer, so that
        # rejections leave the answers as evenly spread as they were.
        rng = generator(source.seed, index, Stream.QUESTION)
        question = draw(rng, drawn.objects, str(question_type))
        if question is not None:
            return drawn, question
    raise AssertionError("count() ended")
