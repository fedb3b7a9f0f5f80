"""MVBench (arXiv:2311.17005): multiple-choice questions about short videos in 20 sub-tasks.

Prompt, reading of the letter and the score of a sub-task are lmms-eval's. Videos are read from the
user's folder; lmms-eval reads its own cache, and does not notice a missing file.
"""

from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from statistics import fmean
from typing import Any

from mustdrop.evaluation.lmms_eval_api import (
    MVBENCH_FOLDERS,
    mvbench_aggregate_results,
    mvbench_doc_to_text,
    mvbench_process_results,
)
from mustdrop.evaluation.tasks.video_task import (
    Document,
    VideoTask,
    existing_folder,
    first_of,
    json_rows,
    require_columns,
)

ACCURACY, AVERAGE = "mvbench_accuracy", "mvbench_average"
COLUMNS = ("video", "question", "candidates", "answer")
PARTS = (".", "data0613")  # folders that hold the folders of the sub-tasks


class MVBench(VideoTask):
    """One question of every sub-task in turn, so that a limit holds as many of each.

    ``mvbench_accuracy`` counts each question; ``mvbench_average`` is the mean over the sub-tasks of
    their own score, ``mvbench_<sub-task>``. These are lmms-eval's, 0 to 100, and leave out empty
    answers.

    Args:
        name: Name of the task in records.
        data: Folder with the questions, ``json/<sub-task>.json``.
        split: Name of the split in records; the files have one.
        videos: Folder of the videos in ``data``.
        sub_tasks: Names of the sub-tasks.
        max_new_tokens: Maximum length of an answer.
        post_prompt: Text after the options.

    Raises:
        ValueError: If a sub-task is unknown, a file does not exist, or a row lacks a column.
    """

    def __init__(
        self,
        name: str,
        data: str,
        split: str,
        videos: str,
        sub_tasks: Sequence[str],
        max_new_tokens: int,
        post_prompt: str,
    ) -> None:
        unknown = [part for part in sub_tasks if part not in MVBENCH_FOLDERS]
        if unknown or not sub_tasks:
            raise ValueError(
                f"sub_tasks must be some of {', '.join(MVBENCH_FOLDERS)}, got {list(sub_tasks)}"
            )
        folder = existing_folder(name, data)
        self.videos, self.post_prompt = folder / videos, post_prompt
        columns = [read_rows(folder, part) for part in sub_tasks]
        rows = [row for turn in zip_longest(*columns) for row in turn if row is not None]
        metrics: dict[str, Any] = {ACCURACY: fmean, AVERAGE: average}
        metrics |= {f"mvbench_{part}": mvbench_aggregate_results for part in sub_tasks}
        super().__init__(name, split, rows, max_new_tokens, score, metrics)

    def prompt(self, doc: Document) -> str:
        return mvbench_doc_to_text(doc, {"post_prompt": self.post_prompt})

    def video(self, doc: Document) -> Path:
        folder = MVBENCH_FOLDERS[doc["sub_task"]]
        return first_of([self.videos / part / folder / doc["video"] for part in PARTS])


def read_rows(folder: Path, sub_task: str) -> list[dict[str, Any]]:
    """Questions of a sub-task.

    Raises:
        ValueError: If the file does not exist, or a row is not as described.
    """
    rows = []
    for number, row in enumerate(json_rows(folder / "json" / f"{sub_task}.json")):
        named = f"{folder}, row {number} of json/{sub_task}.json"
        require_columns(row, COLUMNS, named)
        if row["answer"] not in row["candidates"]:
            raise ValueError(
                f"{named}: answer must be one of {row['candidates']}, got {row['answer']!r}"
            )
        rows.append({**{column: row[column] for column in COLUMNS}, "sub_task": sub_task})
    return rows


def score(doc: Document, results: Sequence[str]) -> dict[str, Any]:
    """lmms-eval's result for one answer; for the means in a list, as it is no score there."""
    ((_, result),) = mvbench_process_results(doc, list(results)).items()
    sub_task = doc["sub_task"]
    return {
        ACCURACY: float(result["score"]),
        AVERAGE: [sub_task, result],
        f"mvbench_{sub_task}": result,
    }


def average(results: Sequence[Sequence[Any]]) -> float:
    """Mean of lmms-eval's scores of the sub-tasks."""
    parts: dict[str, list[Any]] = {}
    for sub_task, result in results:
        parts.setdefault(sub_task, []).append(result)
    return fmean(mvbench_aggregate_results(part) for part in parts.values())
