"""Open questions about videos, in the layout of Video-LLaVA's zero-shot benchmarks."""

import json
import re
import string
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from mustdrop.evaluation.lmms_eval_api import ConfigurableMessagesTask
from mustdrop.evaluation.videos import UnreadableVideo
from mustdrop.provenance.folders import local_folder
from mustdrop.provenance.media_files import SUFFIXES, video_file

EXACT, CONTAINS = "exact_match", "contains"
COLUMNS = ("question_id", "question", "video_name")


class VideoRows:
    """Questions as lmms-eval reads a split: length, documents by index, names of the fields."""

    def __init__(self, rows: Sequence[Mapping[str, Any]]) -> None:
        self.rows = rows
        self.features = dict.fromkeys([*COLUMNS, "answer"])

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return dict(self.rows[index])

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return map(dict, self.rows)


class VideoQA(ConfigurableMessagesTask):
    """Questions about videos, one file of questions and one of answers.

    ``<split>_q.json`` is a list of rows with ``question_id``, ``question`` and ``video_name``;
    ``<split>_a.json`` is a list of the same length and order with ``answer``. The authors' script
    pairs them by their place and leaves out questions without a video; here a pair of two ids is
    refused, and a question without a video is left out and named, as one whose video is damaged.

    The prompt is the question alone. ``exact_match`` compares the answer with the target without
    case, punctuation and articles; ``contains`` looks for the target among the answer's words. The
    papers' accuracy is a judge's: ``mustdrop judge``.

    Args:
        name: Name of the task in records.
        data: Folder with the two files and the videos.
        split: Name of the split, as in ``test_q.json``.
        videos: Folder of the videos in ``data``.
        max_new_tokens: Maximum length of an answer.

    Raises:
        ValueError: If the files do not exist, or a row is not as described; the message names it.
    """

    def __init__(self, name: str, data: str, split: str, videos: str, max_new_tokens: int) -> None:
        if max_new_tokens < 1:
            raise ValueError(f"max_new_tokens must be a count of 1 or more, got {max_new_tokens}")
        self.data, self.split, self.videos = data, split, videos
        self.folder = _folder(name, data)
        self.documents = VideoRows(read_rows(self.folder, split))
        metrics = [
            {"metric": metric, "aggregation": fmean, "higher_is_better": True}
            for metric in (EXACT, CONTAINS)
        ]
        super().__init__(
            config={
                "task": name,
                "test_split": split,
                "output_type": "generate_until",
                "doc_to_visual": self.visual,
                "doc_to_text": lambda doc: doc["question"],
                "doc_to_target": lambda doc: doc["answer"],
                "process_results": score,
                "generation_kwargs": {
                    "max_new_tokens": max_new_tokens, "do_sample": False, "until": [],
                },
                "metric_list": metrics,
                "metadata": {"version": 1.0},
            }
        )  # fmt: skip

    def download(self, dataset_kwargs: Mapping[str, Any] | None = None) -> None:
        self.dataset = {self.split: self.documents}
        self.dataset_no_image = {self.split: self.documents}

    def visual(self, doc: Mapping[str, Any]) -> list[dict[str, str]]:
        """A document's video as lmms-eval describes one: its kind and its path.

        Raises:
            UnreadableVideo: If there is no such file.
        """
        folder = self.folder / self.videos
        file = video_file(folder, doc["video_name"])
        if file is None:
            endings = ", ".join(SUFFIXES)
            raise UnreadableVideo(
                f"there is no video {doc['video_name']} in {folder} (with one of the endings "
                f"{endings})"
            )
        return [{"type": "video", "url": str(file)}]


def read_rows(folder: Path, split: str) -> list[dict[str, Any]]:
    """Rows of a split, each with its answer.

    Raises:
        ValueError: If a file does not exist or a row is not as :class:`VideoQA` describes.
    """
    questions, answers = (_rows(folder / f"{split}_{part}.json") for part in "qa")
    if len(questions) != len(answers):
        raise ValueError(
            f"{folder}: {split}_q.json and {split}_a.json must have the same number of rows, got "
            f"{len(questions)} and {len(answers)}"
        )
    rows = []
    for number, (question, answer) in enumerate(zip(questions, answers, strict=True)):
        named = f"{folder}, row {number} of {split}"
        if missing := [column for column in COLUMNS if column not in question]:
            raise ValueError(f"{named}_q.json lacks {missing[0]}")
        if "answer" not in answer:
            raise ValueError(f"{named}_a.json lacks answer")
        name = question["question_id"]
        if answer.get("question_id", name) != name:
            raise ValueError(
                f"{named}: the files must have their rows in the same order, got question "
                f"{name} and the answer of {answer['question_id']}"
            )
        columns = {column: str(question[column]) for column in COLUMNS}
        rows.append({**columns, "answer": str(answer["answer"])})
    return rows


def score(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """Whether an answer equals the target, and whether it contains it."""
    answer, target = plain_words(results[0]), plain_words(doc["answer"])
    places = range(len(answer) - len(target) + 1)
    inside = bool(target) and any(answer[at : at + len(target)] == target for at in places)
    return {EXACT: float(answer == target), CONTAINS: float(inside)}


def plain_words(text: str) -> list[str]:
    """Words of a text without case, punctuation and articles."""
    text = re.sub(f"[{re.escape(string.punctuation)}]", " ", text.lower())
    return [word for word in text.split() if word not in ("a", "an", "the")]


def _folder(name: str, data: str) -> Path:
    folder = local_folder(data)
    if folder is None:
        raise ValueError(
            f"{name}: there is no folder {data}; set benchmark.data=/path/to/folder, see "
            "docs/video.md for its layout"
        )
    return folder


def _rows(file: Path) -> list[dict[str, Any]]:
    if not file.is_file():
        raise ValueError(f"there is no file {file}; docs/video.md describes the layout")
    try:
        rows = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} must be JSON, got {error}") from error
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise ValueError(f"{file} must be a list of rows with one row or more")
    return rows
