"""Open questions about videos, in the layout of Video-LLaVA's zero-shot benchmarks."""

import re
import string
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from mustdrop.evaluation.tasks.video_task import (
    Document,
    VideoTask,
    existing_folder,
    json_rows,
    require_columns,
)
from mustdrop.evaluation.videos import UnreadableVideo
from mustdrop.provenance.media_files import SUFFIXES, video_file

EXACT, CONTAINS = "exact_match", "contains"
COLUMNS = ("question_id", "question", "video_name")


class VideoQA(VideoTask):
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
        prefix: Text with which the name of a file starts and ``video_name`` does not.
        max_new_tokens: Maximum length of an answer.

    Raises:
        ValueError: If the files do not exist, or a row is not as described; the message names it.
    """

    def __init__(
        self, name: str, data: str, split: str, videos: str, prefix: str, max_new_tokens: int
    ) -> None:
        self.data, self.videos, self.prefix = data, videos, prefix
        self.folder = existing_folder(name, data)
        metrics = {EXACT: fmean, CONTAINS: fmean}
        super().__init__(name, split, read_rows(self.folder, split), max_new_tokens, score, metrics)

    def prompt(self, doc: Document) -> str:
        return doc["question"]

    def video(self, doc: Document) -> Path:
        folder = self.folder / self.videos
        name = self.prefix + doc["video_name"]
        file = video_file(folder, name)
        if file is None:
            endings = ", ".join(SUFFIXES)
            raise UnreadableVideo(
                f"there is no video {name} in {folder} (with one of the endings {endings})"
            )
        return file


def read_rows(folder: Path, split: str) -> list[dict[str, Any]]:
    """Rows of a split, each with its answer.

    Raises:
        ValueError: If a file does not exist or a row is not as :class:`VideoQA` describes.
    """
    questions, answers = (json_rows(folder / f"{split}_{part}.json") for part in "qa")
    if len(questions) != len(answers):
        raise ValueError(
            f"{folder}: {split}_q.json and {split}_a.json must have the same number of rows, got "
            f"{len(questions)} and {len(answers)}"
        )
    rows = []
    for number, (question, answer) in enumerate(zip(questions, answers, strict=True)):
        named = f"{folder}, row {number} of {split}"
        require_columns(question, COLUMNS, f"{named}_q.json")
        require_columns(answer, ("answer",), f"{named}_a.json")
        name = question["question_id"]
        if answer.get("question_id", name) != name:
            raise ValueError(
                f"{named}: the files must have their rows in the same order, got question "
                f"{name} and the answer of {answer['question_id']}"
            )
        columns = {column: str(question[column]) for column in COLUMNS}
        rows.append({**columns, "answer": str(answer["answer"])})
    return rows


def score(doc: Document, results: Sequence[str]) -> dict[str, float]:
    """Whether an answer equals the target, and whether it contains it."""
    answer, target = plain_words(results[0]), plain_words(doc["answer"])
    places = range(len(answer) - len(target) + 1)
    inside = bool(target) and any(answer[at : at + len(target)] == target for at in places)
    return {EXACT: float(answer == target), CONTAINS: float(inside)}


def plain_words(text: str) -> list[str]:
    """Words of a text without case, punctuation and articles."""
    text = re.sub(f"[{re.escape(string.punctuation)}]", " ", text.lower())
    return [word for word in text.split() if word not in ("a", "an", "the")]
