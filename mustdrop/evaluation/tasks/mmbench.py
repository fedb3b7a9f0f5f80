"""MMBench: a question is right if it is answered in every order of its options. Adds a row score.

Uses lmms-eval's static rules to read the letter; no judge model.
"""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import pandas as pd
from datasets import Value

from mustdrop.evaluation.lmms_eval_api import mmbench_evaluator, mmbench_process_results
from mustdrop.evaluation.tasks.stock import StockTask, with_metrics

ACCURACY, INDEX = "mmbench_accuracy", "index"


class MMBench(StockTask):
    """lmms-eval's static MMBench with one more metric, ``mmbench_accuracy``.

    lmms-eval's ``gpt_eval_score`` (0 to 100, even without GPT) counts a question as right if all
    its rows are right; ``mmbench_accuracy`` is the share of rows that are right.

    Some versions of the data set have ``index`` as a text; lmms-eval's scoring needs a number.
    """

    def rows(self, subset: str | None = None) -> Any:
        """Rows of the split, with numbers as ``index``.

        Raises:
            ValueError: If the rows do not exist or an ``index`` is no whole number.
        """
        table = super().rows(subset)
        if INDEX not in table.column_names:
            raise KeyError(INDEX)
        try:
            return table.cast_column(INDEX, Value("int64"))
        except (ValueError, TypeError) as error:
            raise ValueError(
                f"{self.config.task}: the values of {INDEX} in {self.data} must be whole numbers: "
                f"{error}"
            ) from error

    def adapted(self, config: dict[str, Any]) -> dict[str, Any]:
        ours = {"metric": ACCURACY, "aggregation": fmean, "higher_is_better": True}
        return {**with_metrics(config, [ours]), "process_results": score}


def score(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, Any]:
    """lmms-eval's result for one answer, and whether this row alone is right."""
    result = mmbench_process_results(doc, list(results))
    row = pd.DataFrame([result["gpt_eval_score"]])
    right = mmbench_evaluator.eval_sub_data(row, {doc["index"]: doc["answer"]}, static_only=True)
    return {**result, ACCURACY: float(right)}
