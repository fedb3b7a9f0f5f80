"""MMMU: questions of college exams with up to seven images among their words and options."""

import random
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from statistics import fmean
from typing import Any

from mustdrop.evaluation.lmms_eval_api import mmmu_construct_prompt, mmmu_evaluate
from mustdrop.evaluation.pictures import UnreadableImage
from mustdrop.evaluation.tasks.stock import StockTask, with_metrics

ACCURACY = "mmmu_accuracy"
PLACEHOLDER = re.compile(r"<image (\d+)>")


class MMMU(StockTask):
    """lmms-eval's MMMU with one more metric, ``mmmu_accuracy``, the score of a question.

    Two things differ from lmms-eval's code:

    - Each image stands where the text first names it. lmms-eval pairs the images, in the order of
      their numbers, with the places, and leaves out text if a place is named twice.
    - An answer without a letter gets one at random, as in MMMU's own code, but the draw depends on
      the question alone, so that a score is the same in each run.
    """

    def adapted(self, config: dict[str, Any]) -> dict[str, Any]:
        ours = {"metric": ACCURACY, "aggregation": fmean, "higher_is_better": True}
        stock = config["process_results"]

        def score(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, Any]:
            with drawing(doc["id"]):
                result = stock(doc, list(results))["mmmu_acc"]
            judged: Any = mmmu_evaluate([result])
            return {"mmmu_acc": result, ACCURACY: judged[1]["acc"]}

        return {
            **with_metrics(config, [ours]), "process_results": score, "doc_to_messages": messages,
        }  # fmt: skip


def messages(
    doc: Mapping[str, Any], lmms_eval_specific_kwargs: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Conversation of a question: its text, with each image where it is named first.

    Raises:
        UnreadableImage: If the row lacks an image that the text names.
    """
    words = lmms_eval_specific_kwargs
    text = mmmu_construct_prompt(
        doc, words["multiple_choice_prompt"], words["open_ended_prompt"], words["prompt_type"]
    )
    parts: list[dict[str, Any]] = []
    shown, start = set(), 0
    for match in PLACEHOLDER.finditer(text):
        if match[1] in shown:
            continue
        shown.add(match[1])
        image = doc.get(f"image_{match[1]}")
        if image is None:
            raise UnreadableImage(f"the row has no image_{match[1]}")
        parts += [
            _text(text[start : match.start()]),
            {"type": "image", "url": image.convert("RGB")},
        ]
        start = match.end()
    parts.append(_text(text[start:]))
    content = [part for part in parts if part.get("text") != ""]
    return [{"role": "user", "content": content}]


def _text(text: str) -> dict[str, str]:
    return {"type": "text", "text": text.strip()}


@contextmanager
def drawing(question: str) -> Iterator[None]:
    """A context in which the random numbers of ``random`` depend on a question's id alone."""
    state = random.getstate()
    random.seed(question)
    try:
        yield
    finally:
        random.setstate(state)
