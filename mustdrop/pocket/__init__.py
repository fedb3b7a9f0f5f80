"""The packaged benchmark and model: PocketVQA, generated, and PocketLLaVA, a small trained LLaVA.

Needs no network and no download. Does not import :mod:`mustdrop.pocket.training`.
"""

from mustdrop.pocket.dataset import DEFAULT_SPLIT, LONG_SPLITS, SPLITS, Sample, Split, pope, sample
from mustdrop.pocket.evaluation import Score, answer, exact_match, prompt
from mustdrop.pocket.long_questions import LONG_TYPES, ask_long, items_right
from mustdrop.pocket.model import CHECKPOINT, build_model, build_processor, config, load
from mustdrop.pocket.questions import QUESTION_TYPES, Question, ask
from mustdrop.pocket.scenes import GRID, IMAGE_SIZE, PATCH_SIZE, Scene, SceneObject, scene

__all__ = [
    "CHECKPOINT",
    "DEFAULT_SPLIT",
    "GRID",
    "IMAGE_SIZE",
    "LONG_SPLITS",
    "LONG_TYPES",
    "PATCH_SIZE",
    "QUESTION_TYPES",
    "SPLITS",
    "Question",
    "Sample",
    "Scene",
    "SceneObject",
    "Score",
    "Split",
    "answer",
    "ask",
    "ask_long",
    "build_model",
    "build_processor",
    "config",
    "exact_match",
    "items_right",
    "load",
    "pope",
    "prompt",
    "sample",
    "scene",
]
