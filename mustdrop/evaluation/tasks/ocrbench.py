"""OCRBench: reading of text in ten kinds of images; the answer must contain the target."""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from mustdrop.evaluation.tasks.stock import StockTask

ACCURACY = "ocrbench_accuracy"


class OCRBench(StockTask):
    """lmms-eval's OCRBench; ``ocrbench_accuracy`` is the share of right answers.

    The paper's number is 1000 times the share over all 1000 questions. lmms-eval divides by 1000
    however many questions a run has, and counts on from run to run in one process.
    """

    def adapted(self, config: dict[str, Any]) -> dict[str, Any]:
        metric = {"metric": ACCURACY, "aggregation": share, "higher_is_better": True}
        return {**config, "metric_list": [metric]}


def share(results: Sequence[Mapping[str, Any]]) -> float:
    """Share of right answers among lmms-eval's results."""
    return fmean(result["score"] for result in results)
