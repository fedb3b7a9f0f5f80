"""MME: two questions per image, scored together. Adds the paper's total and a question score."""

from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from mustdrop.evaluation.lmms_eval_api import mme_aggregate_results, mme_process_results
from mustdrop.evaluation.tasks.stock import StockTask, with_metrics

ACCURACY = "mme_accuracy"
TOTAL = "mme_total"  # perception + cognition, what most papers call MME


class MME(StockTask):
    """lmms-eval's MME with two more metrics: ``mme_total`` and ``mme_accuracy``.

    A category's score needs both questions of an image, so it has no value for a single question.
    ``mme_accuracy`` has: 1 if lmms-eval reads the right word in the answer.
    """

    def adapted(self, config: dict[str, Any]) -> dict[str, Any]:
        ours = [
            {"metric": TOTAL, "aggregation": total, "higher_is_better": True},
            {"metric": ACCURACY, "aggregation": fmean, "higher_is_better": True},
        ]
        return {**with_metrics(config, ours), "process_results": score}

    def require(self, wanted: int) -> None:
        """Check that the first ``wanted`` documents hold both questions of each image.

        Raises:
            ValueError: If a question of an image is missing; the message names the image. If the
                questions of an image are adjacent, every even limit works.
        """
        rows = self.dataset_no_image[self.split].select_columns(["category", "question_id"])
        images = [(row["category"], row["question_id"]) for row in rows.select(range(wanted))]
        incomplete = [key for key, count in Counter(images).items() if count != 2]
        if incomplete:
            category, question = incomplete[0]
            raise ValueError(
                f"MME scores two questions per image, but the first {wanted} documents do not hold "
                f"both of {question} ({category}): set benchmark.limit to an even number or null"
            )


def score(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, Any]:
    """lmms-eval's result for one answer, also for the total; there in a list, as it is no score."""
    ((group, result),) = mme_process_results(doc, list(results)).items()
    return {group: result, TOTAL: [result], ACCURACY: result["score"]}


def total(results: Sequence[Sequence[Mapping[str, Any]]]) -> float:
    """Sum over the categories of both groups, by lmms-eval's own aggregation."""
    return mme_aggregate_results([result for (result,) in results])
