"""MMBench: a question counts if it is answered in every order of its options. Adds a score a row.

No judge: lmms-eval's static reading of the letter.
"""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import pandas as pd

from mustdrop.evaluation.lmms_eval_api import mmbench_evaluator, mmbench_process_results
from mustdrop.evaluation.tasks.stock import StockTask, with_metrics

ACCURACY = "mmbench_accuracy"


class MMBench(StockTask):
    """lmms-eval's static MMBench with one metric more, ``mmbench_accuracy``.

    Its own ``gpt_eval_score`` (0 to 100, whatever the judge) counts a question once, right if all
    its copies in the data are; ours is the share of rows answered right, each for itself.
    """

    def adapted(self, config: dict[str, Any]) -> dict[str, Any]:
        ours = {"metric": ACCURACY, "aggregation": fmean, "higher_is_better": True}
        return {**with_metrics(config, [ours]), "process_results": score}


def score(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, Any]:
    """What lmms-eval keeps of one answer, and whether it alone would be counted right."""
    made = mmbench_process_results(doc, list(results))
    row = pd.DataFrame([made["gpt_eval_score"]])
    right = mmbench_evaluator.eval_sub_data(row, {doc["index"]: doc["answer"]}, static_only=True)
    return {**made, ACCURACY: float(right)}
