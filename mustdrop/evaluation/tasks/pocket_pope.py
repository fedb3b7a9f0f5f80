"""PocketVQA's yes/no pairs as an lmms-eval task, scored by lmms-eval's own POPE code."""

from collections.abc import Mapping, Sequence
from typing import Any

from mustdrop.evaluation.lmms_eval_api import pope_utils
from mustdrop.evaluation.tasks.documents import PocketTask
from mustdrop.pocket.dataset import SPLITS, pope

METRICS = ("accuracy", "precision", "recall", "f1_score", "yes_ratio")


class PocketPOPE(PocketTask):
    """Yes/no pairs of one split.

    lmms-eval's ``pope_yes_ratio`` is the share of yes in the targets, not in the model's answers:
    it is always one half here.

    Args:
        name: Name of the task in lmms-eval.
        split: Name of a split in :data:`mustdrop.pocket.dataset.SPLITS`.
    """

    def __init__(self, name: str, split: str) -> None:
        size = 2 * SPLITS[split].size if split in SPLITS else 0
        metrics = [
            {
                "metric": f"pope_{metric}",
                "aggregation": getattr(pope_utils, f"pope_aggregate_{metric}"),
                "higher_is_better": True,
            }
            for metric in METRICS
        ]
        super().__init__(name, split, pope, size, score, metrics)


def score(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, Any]:
    """Result of lmms-eval's POPE code for one answer."""
    return pope_utils.pope_process_results({**doc, "question_id": doc["index"]}, list(results))
