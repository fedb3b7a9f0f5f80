"""A user's own questions as an lmms-eval task: a folder with questions, images and videos."""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from mustdrop.evaluation.lmms_eval_api import ConfigurableMessagesTask
from mustdrop.evaluation.tasks.custom_rows import (
    LETTERS,
    opened,
    question_file,
    read_rows,
)
from mustdrop.evaluation.tasks.custom_scores import (
    ANSWERERS,
    CHOICE,
    PEOPLE,
    SCORES,
    score,
    scores_of,
)
from mustdrop.evaluation.tasks.video_task import ListedRows
from mustdrop.provenance.folders import local_folder


class CustomData(ConfigurableMessagesTask):
    """The questions of ``<split>.jsonl`` or ``<split>.parquet``; docs/own_data.md has the fields.

    Args:
        name: Name of the task in records.
        data: Folder with the file.
        split: Name of the file, without its ending.
        media: Folder in ``data`` where paths of images and videos start.
        metric: Score that the run reports first; every row must have it.
        max_new_tokens: Maximum length of an answer.
        suffix: Text behind each question.
        choice_suffix: Text behind a question with choices, which stand between the two.

    Raises:
        ValueError: If the folder or its file does not exist, a row is not as described, or rows
            lack what the metric needs.
    """

    def __init__(
        self,
        name: str,
        data: str,
        split: str,
        media: str,
        metric: str,
        max_new_tokens: int,
        suffix: str,
        choice_suffix: str,
    ) -> None:
        if max_new_tokens < 1:
            raise ValueError(f"max_new_tokens must be a count of 1 or more, got {max_new_tokens}")
        folder = local_folder(data)
        if folder is None:
            raise ValueError(
                f"{name}: there is no folder {data}; set benchmark.data=/path/to/folder, see "
                "docs/own_data.md for its layout"
            )
        self.split, self.suffix, self.choice_suffix = split, suffix, choice_suffix
        file = question_file(folder, split)
        self.documents = ListedRows(read_rows(file, folder / media))
        self.scores = scores_of(self.documents.rows)
        _require_metric(str(file), metric, self.scores)
        super().__init__(
            config={
                "task": name,
                "test_split": split,
                "output_type": "generate_until",
                "doc_to_visual": _visual,
                "doc_to_text": self.text,
                "doc_to_target": lambda doc: doc["answers"][0],
                "process_results": lambda doc, results: score(doc, results[0], self.scores),
                "generation_kwargs": {
                    "max_new_tokens": max_new_tokens, "do_sample": False, "until": [],
                },
                "metric_list": [
                    {"metric": name, "aggregation": fmean, "higher_is_better": True}
                    for name in self.scores
                ],
                "metadata": {"version": 1.0},
            }
        )  # fmt: skip

    def download(self, dataset_kwargs: Mapping[str, Any] | None = None) -> None:
        self.dataset = {self.split: self.documents}
        self.dataset_no_image = {self.split: self.documents}

    def text(self, doc: Mapping[str, Any]) -> str:
        """Prompt of a question: its choices with their letters, if it has any, and the suffix."""
        if "choices" not in doc:
            return doc["question"] + self.suffix
        listed = [f"{LETTERS[i]}. {choice}" for i, choice in enumerate(doc["choices"])]
        return "\n".join([doc["question"], *listed]) + self.choice_suffix


def _visual(doc: Mapping[str, Any]) -> list[Any]:
    """Images of a row, or its video as lmms-eval describes one."""
    if "video" in doc:
        return [{"type": "video", "url": doc["video"]}]
    return [opened(image) for image in doc["images"]]


def _require_metric(file: str, metric: str, scores: Sequence[str]) -> None:
    if metric not in SCORES:
        raise ValueError(f"benchmark.metric must be one of {', '.join(SCORES)}, got {metric}")
    if metric not in scores:
        needs = {
            PEOPLE: f"{ANSWERERS} answers or more, by as many people",
            CHOICE: "choices",
        }
        raise ValueError(f"{file}: for {metric}, every row must have {needs[metric]}")
