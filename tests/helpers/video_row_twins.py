"""Twins of the benchmarks of videos: made-up rows with the oddities of the real ones.

Layouts: Video-LLaVA's zero-shot folders (PKU-YuanGroup/Video-LLaVA, videollava/eval/video), the
data sets OpenGVLab/MVBench and lmms-eval/Video-MME. ``video_twins.py`` has shorter ones.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import datasets
from row_twins import question
from video_files import write_video
from video_twins import write_frames

from mustdrop.evaluation.lmms_eval_api import MVBENCH_FOLDERS

COUNT = 54  # rows of a twin; MVBench's has a few more
ENDINGS = ("mp4", "avi", "mkv", "webm")
NAMES = ("-4wsuPCjDBc_5_15", "video6513", "tumblr_nd24xaX8c11qkb1azo1_250", "a.b c", "v_x", "Ü1")
WORDS: tuple[Any, ...] = (
    "onion", "a hot-dog", 2, "New York", "yes", "t-shirt", "the red one", "the end",
    "people's park",
)  # fmt: skip


def one_video(folder: Path) -> Path:
    """A short video that the others are copies of."""
    folder.mkdir(parents=True, exist_ok=True)
    return write_video(folder / "source.mp4", count=4)


def open_questions(root: Path, videos: str, prefix: str, split: str = "test") -> list[str]:
    """Several questions to a video; ids that are numbers; answers that are numbers.

    Returns:
        The answers.
    """
    source = one_video(root)
    (root / videos).mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(NAMES):
        shutil.copy(source, root / videos / f"{prefix}{name}.{ENDINGS[number % 4]}")
    questions, answers = [], []
    for number in range(COUNT):
        name: Any = number if number % 2 else f"v_1QIUV7WYKXg_{number}"
        questions.append(
            {"question_id": name, "question": question(number), "video_name": NAMES[number % 6]}
        )
        answer = {"answer": WORDS[number % len(WORDS)], "type": number % 4}
        answers.append(answer if number % 3 else {**answer, "question_id": name})
    for part, rows in (("q", questions), ("a", answers)):
        (root / f"{split}_{part}.json").write_text(json.dumps(rows, ensure_ascii=False))
    return [str(row["answer"]) for row in answers]


def mvbench(root: Path) -> dict[str, list[str]]:
    """Three questions of each sub-task; two to five candidates; columns that are not read.

    Returns:
        Sub-task -> right letters.
    """
    candidates = (
        ["yes", "no"],
        ["3", "2", "4", "1"],
        ["a", "cup", "a cup", "The cup.", "not sure"],
    )
    source, letters = one_video(root), {}
    for task, folder in MVBENCH_FOLDERS.items():
        place = root / "video" / ("data0613" if "Charades" in folder else ".") / folder
        place.mkdir(parents=True, exist_ok=True)
        rows = []
        for number, shown in enumerate(candidates):
            name = f"{task} {number}.{ENDINGS[number]}"
            if task == "episodic_reasoning":
                name = f"s03e0{number}_seg02_clip_07"
                write_frames(place / name, 4)
            else:
                shutil.copy(source, place / name)
            rows.append({
                "video": name, "question": question(number), "candidates": shown,
                "answer": shown[-1 - number % 2], "start": 1.5 * number, "end": 9.0, "fps": 3,
                "question_id": number, "subtitle": "",
            })  # fmt: skip
        letters[task] = ["ABCDE"[row["candidates"].index(row["answer"])] for row in rows]
        (root / "json").mkdir(exist_ok=True)
        (root / "json" / f"{task}.json").write_text(json.dumps(rows))
    return letters


def videomme(root: Path) -> list[str]:
    """Three questions to a video; names that start with a sign.

    Returns:
        The right letters.
    """
    source = one_video(root)
    (root / "data").mkdir(parents=True)
    endings, lengths, rows = (".mp4", ".MP4", ".mkv"), ("short", "medium", "long"), []
    for number in range(COUNT):
        video = f"{'-_x'[number // 3 % 3]}Rhz{number // 3}"
        shutil.copy(source, root / "data" / f"{video}{endings[number // 3 % 3]}")
        rows.append({
            "video_id": f"{number // 3 + 1:03}", "duration": lengths[number // 18],
            "domain": "Knowledge", "sub_category": "Humanity & History", "url": "u",
            "videoID": video, "question_id": f"{number // 3 + 1:03}-{number % 3 + 1}",
            "task_type": "Counting Problem", "question": question(number),
            "options": ["A. 3.", "B. \"Yes\", he said.", "C. A and B.", "D. None of the above."],
            "answer": "ABCD"[number % 4],
        })  # fmt: skip
    (root / "videomme").mkdir()
    datasets.Dataset.from_list(rows).to_parquet(root / "videomme" / "test-00000-of-00001.parquet")
    return [row["answer"] for row in rows]
