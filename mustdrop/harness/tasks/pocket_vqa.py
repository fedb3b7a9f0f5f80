"""PocketVQA as an lmms-eval task: documents drawn when they are asked for, no file, no network."""

from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any

from lmms_eval.api.task import ConfigurableMessagesTask

from mustdrop.pocket.dataset import SPLITS, sample
from mustdrop.pocket.questions import QUESTION_TYPES

METRIC = "exact_match"
FIELDS = ("index", "question", "answer", "type")


class Documents:
    """A split as lmms-eval reads one: a length, a document at an index, the names of its fields."""

    def __init__(self, split: str, images: bool = True) -> None:
        if split not in SPLITS:
            raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
        self.split, self.images = split, images
        self.features = dict.fromkeys(("image", *FIELDS) if images else FIELDS)

    def __len__(self) -> int:
        return SPLITS[self.split].size

    def __getitem__(self, index: int) -> dict[str, Any]:
        drawn = sample(self.split, index)
        return {name: getattr(drawn, name) for name in self.features}

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self[index] for index in range(len(self)))


class PocketVQA(ConfigurableMessagesTask):
    """One split of PocketVQA: exact match, overall and for each type of question.

    Args:
        name: What lmms-eval calls the task.
        split: One of :data:`mustdrop.pocket.dataset.SPLITS`.
    """

    def __init__(self, name: str, split: str) -> None:
        self.split = split
        metrics = [METRIC, *(f"{METRIC}_{kind}" for kind in QUESTION_TYPES)]
        super().__init__(
            config={
                "task": name,
                "test_split": split,
                "output_type": "generate_until",
                "doc_to_visual": lambda doc: [doc["image"]],
                "doc_to_text": lambda doc: doc["question"],
                "doc_to_target": lambda doc: doc["answer"],
                "process_results": score,
                "generation_kwargs": {"max_new_tokens": 4, "do_sample": False, "until": []},
                "metric_list": [
                    {"metric": metric, "aggregation": fmean, "higher_is_better": True}
                    for metric in metrics
                ],
                "metadata": {"version": 1.0},
            }
        )

    def download(self, dataset_kwargs: Mapping[str, Any] | None = None) -> None:
        self.dataset = {self.split: Documents(self.split)}
        self.dataset_no_image = {self.split: Documents(self.split, images=False)}


def score(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """One if the answer is, word for word, the right one."""
    right = float(results[0].strip() == doc["answer"])
    return {METRIC: right, f"{METRIC}_{doc['type']}": right}
