"""MMBench: a question is right if it is answered in every order of its options. Adds a row score.

Uses lmms-eval's static rules to read the letter; no judge model.
"""

from collections.abc import Mapping, Sequence
from itertools import takewhile
from statistics import fmean
from typing import Any

import pandas as pd
from datasets import Value

from mustdrop.evaluation.lmms_eval_api import mmbench_evaluator, mmbench_process_results
from mustdrop.evaluation.tasks.stock import StockTask, with_metrics

ACCURACY, INDEX, FORM = "mmbench_accuracy", "index", "form"
OPTIONS = "ABCD"
MISSING = ("nan", "none")  # texts of an option or a hint that does not exist
# Control characters, which a worksheet cannot hold; lmms-eval writes the submission as one.
NOT_IN_SHEETS = dict.fromkeys(code for code in range(32) if chr(code) not in "\t\n\r")


class MMBench(StockTask):
    """lmms-eval's static MMBench with one more metric, ``mmbench_accuracy``.

    lmms-eval's ``gpt_eval_score`` (0 to 100, even without GPT) counts a question as right if all
    its rows are right; ``mmbench_accuracy`` is the share of rows that are right.

    Some versions of the data set have ``index`` as a text; lmms-eval's scoring needs a number.

    ``prompt.form`` is ``hub`` for lmms-eval's prompt, ``authors`` for that of LLaVA's own script.

    Raises:
        ValueError: If ``prompt.form`` is another word.
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
        config = {**with_metrics(config, [ours]), "process_results": score}
        forms = {"hub": config["doc_to_text"], "authors": authors_text}
        words = config["lmms_eval_specific_kwargs"]["default"]
        if words[FORM] not in forms:
            raise ValueError(f"prompt.form must be one of {', '.join(forms)}, got {words[FORM]}")
        return {**config, "doc_to_text": forms[words[FORM]]}


def authors_text(doc: Mapping[str, Any], words: Mapping[str, Any]) -> str:
    """Prompt of LLaVA's llava/eval/model_vqa_mmbench.py with ``--single-pred-prompt``.

    Hint, question and options on lines of their own; the first missing option ends them.
    """
    lines = [doc["question"]] if _is_missing(doc["hint"]) else [doc["hint"], doc["question"]]
    given = takewhile(lambda letter: not _is_missing(doc[letter]), OPTIONS)
    lines += [f"{letter}. {doc[letter]}" for letter in given]
    return "\n".join(lines) + words["post_prompt"]


def _is_missing(text: str | None) -> bool:
    return text is None or text.lower() in MISSING


def score(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, Any]:
    """lmms-eval's result for one answer, and whether this row alone is right."""
    result = mmbench_process_results(doc, list(results))
    result["submission"] = {
        name: value.translate(NOT_IN_SHEETS) if isinstance(value, str) else value
        for name, value in result["submission"].items()
    }
    row = pd.DataFrame([result["gpt_eval_score"]])
    right = mmbench_evaluator.eval_sub_data(row, {doc["index"]: doc["answer"]}, static_only=True)
    return {**result, ACCURACY: float(right)}
