"""MME: two questions an image, scored together. Adds the paper's total and a score a question."""

from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from mustdrop.evaluation.lmms_eval_api import mme_aggregate_results, mme_process_results
from mustdrop.evaluation.tasks.stock import StockTask, with_metrics

ACCURACY = "mme_accuracy"
TOTAL = "mme_total"  # perception + cognition, what most papers call MME


class MME(StockTask):
    """lmms-eval's MME with two metrics more: ``mme_total`` and ``mme_accuracy``.

    A category's score needs both questions of an image, so it has no value for one of them;
    ``mme_accuracy`` has: one where lmms-eval reads the right word out of the answer.
    """

    def adapted(self, config: dict[str, Any]) -> dict[str, Any]:
        ours = [
            {"metric": TOTAL, "aggregation": total, "higher_is_better": True},
            {"metric": ACCURACY, "aggregation": fmean, "higher_is_better": True},
        ]
        return {**with_metrics(config, ours), "process_results": score}

    def require(self, wanted: int) -> None:
        """Raise if an image's two questions are not both among the first ``wanted``.

        Raises:
            ValueError: That says which; every even limit will do where they lie side by side.
        """
        rows = self.dataset_no_image[self.split].select_columns(["category", "question_id"])
        asked = [(row["category"], row["question_id"]) for row in rows.select(range(wanted))]
        odd = [key for key, count in Counter(asked).items() if count != 2]
        if odd:
            category, question = odd[0]
            raise ValueError(
                f"MME scores two questions an image, but the first {wanted} documents do not hold "
                f"both of {question} ({category}): ask for another benchmark.limit, an even one, "
                "or null"
            )


def score(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, Any]:
    """What lmms-eval keeps of one answer, for the total too; there in a list, as it is no score."""
    ((group, told),) = mme_process_results(doc, list(results)).items()
    return {group: told, TOTAL: [told], ACCURACY: told["score"]}


def total(results: Sequence[Sequence[Mapping[str, Any]]]) -> float:
    """lmms-eval's own aggregation over the categories of both groups: a sum over categories."""
    return mme_aggregate_results([told for (told,) in results])
