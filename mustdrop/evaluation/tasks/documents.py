"""PocketVQA samples as a data set for lmms-eval, generated when they are read; no files."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from mustdrop.evaluation.lmms_eval_api import ConfigurableMessagesTask
from mustdrop.pocket.dataset import SPLITS, Sample

FIELDS = ("question", "answer", "type")
MARKS = ("target_patches", "object_patches")  # patches that the oracles use
RECALL_MARK = "target_patches"  # patches that target recall uses


class Documents:
    """A split as lmms-eval reads it: length, documents by index, names of the fields.

    Args:
        draw: Function that returns the sample of a split at an index.
        split: Name of a split in :data:`mustdrop.pocket.dataset.SPLITS`.
        size: Number of documents.
        images: Whether documents contain images.
        fields: Names of the other fields.
    """

    def __init__(
        self,
        draw: Callable[[str, int], Sample],
        split: str,
        size: int,
        images: bool = True,
        fields: Sequence[str] = FIELDS,
    ) -> None:
        self.draw, self.split, self.size = draw, split, size
        image_fields = ("image",) if images else ()
        self.features = dict.fromkeys(["index", *image_fields, *fields, *MARKS])

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> dict[str, Any]:
        sample = self.draw(self.split, index)
        return {name: getattr(sample, name) for name in self.features}

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self[index] for index in range(len(self)))


class PocketTask(ConfigurableMessagesTask):
    """Generated questions, as an lmms-eval task.

    Args:
        name: Name of the task in lmms-eval.
        split: Name of one of ``splits``.
        draw: Function that returns the sample of a split at an index.
        size: Number of documents.
        process_results: Function that scores one document.
        metric_list: Metrics in lmms-eval's format.
        splits: Names of the splits that the task may have.
        max_new_tokens: Most tokens of an answer.
        fields: Names of the fields of a document, next to its image and its marks.

    Raises:
        ValueError: If the split does not exist.
    """

    def __init__(
        self,
        name: str,
        split: str,
        draw: Callable[[str, int], Sample],
        size: int,
        process_results: Callable[[Mapping[str, Any], Sequence[str]], Mapping[str, Any]],
        metric_list: Sequence[Mapping[str, Any]],
        splits: Sequence[str] = tuple(SPLITS),
        max_new_tokens: int = 4,
        fields: Sequence[str] = FIELDS,
    ) -> None:
        if split not in splits:
            raise ValueError(f"split must be one of {', '.join(splits)}, got {split!r}")
        self.split = split
        self.made = {
            split: [Documents(draw, split, size, images, fields) for images in (True, False)]
        }
        super().__init__(
            config={
                "task": name,
                "test_split": split,
                "output_type": "generate_until",
                "doc_to_visual": lambda doc: [doc["image"]],
                "doc_to_text": lambda doc: doc["question"],
                "doc_to_target": lambda doc: doc["answer"],
                "process_results": process_results,
                "generation_kwargs": {
                    "max_new_tokens": max_new_tokens,
                    "do_sample": False,
                    "until": [],
                },
                "metric_list": list(metric_list),
                "metadata": {"version": 1.0, "recall_mark": RECALL_MARK},
            }
        )

    def download(self, dataset_kwargs: Mapping[str, Any] | None = None) -> None:
        self.dataset = {split: made[0] for split, made in self.made.items()}
        self.dataset_no_image = {split: made[1] for split, made in self.made.items()}
