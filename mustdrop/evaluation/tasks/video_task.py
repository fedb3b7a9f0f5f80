"""Questions about the videos of a local folder, as an lmms-eval task. Knows no single benchmark."""

import json
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mustdrop.evaluation.lmms_eval_api import ConfigurableMessagesTask
from mustdrop.evaluation.videos import UnreadableVideo
from mustdrop.provenance.folders import local_folder

Document = Mapping[str, Any]
Score = Callable[[Document, Sequence[str]], Mapping[str, Any]]


class ListedRows:
    """Questions as lmms-eval reads a split: length, documents by index, names of the fields."""

    def __init__(self, rows: Sequence[Document]) -> None:
        self.rows = rows
        self.features = dict.fromkeys(rows[0])

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return dict(self.rows[index])

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return map(dict, self.rows)


class VideoTask(ConfigurableMessagesTask):
    """Questions about videos, each with the file of its video.

    Args:
        name: Name of the task in records.
        split: Name of the split in records.
        rows: Questions; all have the same columns.
        max_new_tokens: Maximum length of an answer.
        score: Function that scores the answers to a question.
        metrics: Name -> function from the values of all questions to the value of the run.

    Raises:
        ValueError: If ``max_new_tokens`` is not a count.
    """

    def __init__(
        self,
        name: str,
        split: str,
        rows: Sequence[Document],
        max_new_tokens: int,
        score: Score,
        metrics: Mapping[str, Callable[[Sequence[Any]], float]],
    ) -> None:
        if max_new_tokens < 1:
            raise ValueError(f"max_new_tokens must be a count of 1 or more, got {max_new_tokens}")
        self.split, self.documents = split, ListedRows(rows)
        super().__init__(
            config={
                "task": name,
                "test_split": split,
                "output_type": "generate_until",
                "doc_to_visual": self.visual,
                "doc_to_text": self.prompt,
                "doc_to_target": lambda doc: doc["answer"],
                "process_results": score,
                "generation_kwargs": {
                    "max_new_tokens": max_new_tokens, "do_sample": False, "until": [],
                },
                "metric_list": [
                    {"metric": metric, "aggregation": aggregate, "higher_is_better": True}
                    for metric, aggregate in metrics.items()
                ],
                "metadata": {"version": 1.0},
            }
        )  # fmt: skip

    def download(self, dataset_kwargs: Mapping[str, Any] | None = None) -> None:
        self.dataset = {self.split: self.documents}
        self.dataset_no_image = {self.split: self.documents}

    def visual(self, doc: Document) -> list[dict[str, str]]:
        """A document's video as lmms-eval describes one: its kind and its path.

        Raises:
            UnreadableVideo: If there is no such file.
        """
        return [{"type": "video", "url": str(self.video(doc))}]

    @abstractmethod
    def prompt(self, doc: Document) -> str:
        """Text of a question."""

    @abstractmethod
    def video(self, doc: Document) -> Path:
        """File of a question's video.

        Raises:
            UnreadableVideo: If there is no such file.
        """


def first_of(paths: Sequence[Path]) -> Path:
    """The first of these paths that exists.

    Raises:
        UnreadableVideo: If none exists; names all.
    """
    for path in paths:
        if path.exists():
            return path
    raise UnreadableVideo(f"there is no video {' or '.join(map(str, paths))}")


def existing_folder(name: str, data: str) -> Path:
    """Folder of a benchmark.

    Raises:
        ValueError: If there is no such folder.
    """
    folder = local_folder(data)
    if folder is None:
        raise ValueError(
            f"{name}: there is no folder {data}; set benchmark.data=/path/to/folder, see "
            "docs/video.md for its layout"
        )
    return folder


def json_rows(file: Path) -> list[dict[str, Any]]:
    """Rows of a JSON file.

    Raises:
        ValueError: If it does not exist, or is no list of rows.
    """
    if not file.is_file():
        raise ValueError(f"there is no file {file}; docs/video.md describes the layout")
    try:
        rows = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} must be JSON, got {error}") from error
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise ValueError(f"{file} must be a list of rows with one row or more")
    return rows


def require_columns(row: Document, columns: Sequence[str], named: str) -> None:
    """Check that a row has these columns.

    Raises:
        ValueError: With the first column that is missing.
    """
    for column in columns:
        if column not in row:
            raise ValueError(f"{named} lacks {column}")
