"""Generated samples as lmms-eval reads a data set: drawn when asked for, no file, no network."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from mustdrop.evaluation.lmms_eval_api import ConfigurableMessagesTask
from mustdrop.pocket.dataset import SPLITS, Sample

FIELDS = ("question", "answer", "type")
MARKS = ("target_patches", "object_patches")  # what bounds may look at, and recall is measured on


class Documents:
    """A split as lmms-eval reads one: a length, a document at an index, the names of its fields.

    Args:
        draw: The sample of a split at an index.
        split: One of :data:`mustdrop.pocket.dataset.SPLITS`.
        size: How many there are.
        images: Whether documents hold images.
    """

    def __init__(
        self, draw: Callable[[str, int], Sample], split: str, size: int, images: bool = True
    ) -> None:
        self.draw, self.split, self.size = draw, split, size
        pictured = ("image",) if images else ()
        self.features = dict.fromkeys(["index", *pictured, *FIELDS, *MARKS])

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> dict[str, Any]:
        drawn = self.draw(self.split, index)
        return {name: getattr(drawn, name) for name in self.features}

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self[index] for index in range(len(self)))


class PocketTask(ConfigurableMessagesTask):
    """Generated questions, one word to answer each, as an lmms-eval task.

    Args:
        name: What lmms-eval calls the task.
        split: One of :data:`mustdrop.pocket.dataset.SPLITS`.
        draw: The sample of a split at an index.
        size: How many there are.
        process_results: Scores of one document.
        metric_list: lmms-eval's metrics.

    Raises:
        ValueError: If there is no such split.
    """

    def __init__(
        self,
        name: str,
        split: str,
        draw: Callable[[str, int], Sample],
        size: int,
        process_results: Callable[[Mapping[str, Any], Sequence[str]], Mapping[str, Any]],
        metric_list: Sequence[Mapping[str, Any]],
    ) -> None:
        if split not in SPLITS:
            raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
        self.split = split
        self.made = {split: [Documents(draw, split, size, images) for images in (True, False)]}
        super().__init__(
            config={
                "task": name,
                "test_split": split,
                "output_type": "generate_until",
                "doc_to_visual": lambda doc: [doc["image"]],
                "doc_to_text": lambda doc: doc["question"],
                "doc_to_target": lambda doc: doc["answer"],
                "process_results": process_results,
                "generation_kwargs": {"max_new_tokens": 4, "do_sample": False, "until": []},
                "metric_list": list(metric_list),
                "metadata": {"version": 1.0},
            }
        )

    def download(self, dataset_kwargs: Mapping[str, Any] | None = None) -> None:
        self.dataset = {split: made[0] for split, made in self.made.items()}
        self.dataset_no_image = {split: made[1] for split, made in self.made.items()}
