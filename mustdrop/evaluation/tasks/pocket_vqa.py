"""PocketVQA as an lmms-eval task: exact match, overall and for each type of question."""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from mustdrop.evaluation.tasks.documents import PocketTask
from mustdrop.pocket.dataset import SPLITS, sample
from mustdrop.pocket.questions import QUESTION_TYPES

METRIC = "exact_match"


class PocketVQA(PocketTask):
    """One split of PocketVQA.

    Args:
        name: Name of the task in lmms-eval.
        split: Name of a split in :data:`mustdrop.pocket.dataset.SPLITS`.
    """

    def __init__(self, name: str, split: str) -> None:
        size = SPLITS[split].size if split in SPLITS else 0
        names = [METRIC, *(f"{METRIC}_{kind}" for kind in QUESTION_TYPES)]
        metrics = [{"metric": m, "aggregation": fmean, "higher_is_better": True} for m in names]
        super().__init__(name, split, sample, size, score, metrics)


def score(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """1 if the answer equals the target exactly, else 0; overall and for the question type."""
    right = float(results[0].strip() == doc["answer"])
    return {METRIC: right, f"{METRIC}_{doc['type']}": right}
