"""PocketVQA's yes/no pairs as an lmms-eval task, scored by lmms-eval's own POPE code."""

from collections.abc import Mapping, Sequence
from typing import Any

from mustdrop.evaluation.lmms_eval_api import pope_utils
from mustdrop.evaluation.tasks.documents import PocketTask
from mustdrop.pocket.dataset import SPLITS, pope

METRICS = ("accuracy", "precision", "recall", "f1_score", "yes_ratio")


class PocketPOPE(PocketTask):
    """One split's yes/no pairs.

    lmms-eval's ``pope_yes_ratio`` is the share of yes among the right answers, not the given ones:
    always a half here.

    Args:
        name: What lmms-eval calls the task.
        split: One of :data:`mustdrop.pocket.dataset.SPLITS`.
    """

    def __init__(self, name: str, split: str) -> None:
        size = 2 * SPLITS[split].size if split in SPLITS else 0
        told = [
            {
                "metric": f"pope_{metric}",
                "aggregation": getattr(pope_utils, f"pope_aggregate_{metric}"),
                "higher_is_better": True,
            }
            for metric in METRICS
        ]
        super().__init__(name, split, pope, size, score, told)


def score(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, Any]:
    """What lmms-eval's POPE keeps of one answer."""
    return pope_utils.pope_process_results({**doc, "question_id": doc["index"]}, list(results))
