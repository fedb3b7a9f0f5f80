"""Video-MME (arXiv:2405.21075), without subtitles: multiple-choice questions about long videos.

Prompt and reading of the letter are those of lmms-eval's videomme. Its module is not imported: it
needs OpenCV, and ends the process where a video is missing.
"""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from mustdrop.evaluation.lmms_eval_api import extract_mcq_answer
from mustdrop.evaluation.tasks.rows import load_rows
from mustdrop.evaluation.tasks.video_task import (
    Document,
    VideoTask,
    existing_folder,
    first_of,
    require_columns,
)

ACCURACY = "videomme_accuracy"
COLUMNS = ("videoID", "question_id", "duration", "question", "options", "answer")
DURATIONS = ("short", "medium", "long")
ENDINGS = (".mp4", ".MP4", ".mkv")
# The words about subtitles are lmms-eval's, also where none are given.
INSTRUCTION = (
    "Select the best answer to the following multiple-choice question based on the video and the "
    "subtitles. Respond with only the letter (A, B, C, or D) of the correct option."
)


class VideoMME(VideoTask):
    """Questions with four options.

    ``videomme_accuracy`` is the share of right letters, ``videomme_short``, ``videomme_medium`` and
    ``videomme_long`` are that of the videos of a length. lmms-eval's ``videomme_perception_score``
    is 100 times the first.

    Args:
        name: Name of the task in records.
        data: Folder with the parquet files of the split, and the videos.
        subset: Subfolder of the parquet files.
        split: Name of the split.
        videos: Folder of the videos in ``data``.
        max_new_tokens: Maximum length of an answer.
        post_prompt: Text after the options.

    Raises:
        ValueError: If the rows do not exist, or lack a column.
    """

    def __init__(
        self,
        name: str,
        data: str,
        subset: str,
        split: str,
        videos: str,
        max_new_tokens: int,
        post_prompt: str,
    ) -> None:
        folder = existing_folder(name, data)
        self.videos, self.post_prompt = folder / videos, post_prompt
        table: Any = load_rows(str(folder), subset, split)
        require_columns(table[0], COLUMNS, f"{name}: split {split} of {folder}")
        rows = [{column: row[column] for column in COLUMNS} for row in table]
        metrics = {ACCURACY: fmean, **{f"videomme_{length}": fmean for length in DURATIONS}}
        super().__init__(name, split, rows, max_new_tokens, score, metrics)

    def prompt(self, doc: Document) -> str:
        options = "\n".join(doc["options"])
        return f"{INSTRUCTION}\n{doc['question']}\n{options}\n{self.post_prompt}"

    def video(self, doc: Document) -> Path:
        return first_of([self.videos / f"{doc['videoID']}{ending}" for ending in ENDINGS])


def score(doc: Document, results: Sequence[str]) -> dict[str, float]:
    """Whether the letter that lmms-eval reads in an answer is the right one."""
    letter = extract_mcq_answer(results[0], choices=["A", "B", "C", "D"])
    right = float(letter.lower() == doc["answer"].lower())
    return {ACCURACY: right, f"videomme_{doc['duration']}": right}
