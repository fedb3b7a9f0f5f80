"""Small twins of the folders of MVBench and Video-MME, with generated videos."""

import json
from pathlib import Path
from typing import Any

import datasets
from PIL import Image
from video_files import STEP, frame, write_video

# one of MVBench's folders of clips, one of frames, and one below data0613
PARTS = ("action_antonym", "episodic_reasoning", "object_interaction")


def write_frames(folder: Path, count: int, first: int = 0) -> Path:
    folder.mkdir(parents=True)
    for index in range(count):
        Image.fromarray(frame(first + index * STEP)).save(folder / f"{index + 1:05}.png")
    return folder


def asked(video: str, question: str, candidates: list[str], answer: str) -> dict[str, Any]:
    return {"video": video, "question": question, "candidates": candidates, "answer": answer}


def mvbench(root: Path) -> Path:
    """Two questions on clips, two on folders of frames, one on a clip of an unpacked part."""
    clips, frames = root / "video/ssv2_video_mp4", root / "video/tvqa/video_fps3_hq_segment"
    part = root / "video/data0613/star/Charades_segment"
    rows = {
        "action_antonym": [
            asked("1.mp4", "Which?", ["up", "down"], "down"),
            asked("2.mp4", "Which?", ["open", "close", "not sure"], "open"),
        ],
        "episodic_reasoning": [
            asked("clip_a", "Why?", ["x", "y", "z", "v", "w"], "z"),
            asked("clip_b", "Who?", ["he", "she"], "she"),
        ],
        "object_interaction": [asked("3.mp4", "What?", ["cup", "bag"], "cup")],
    }
    for folder in (clips, part, root / "json"):
        folder.mkdir(parents=True)
    write_video(clips / "1.mp4")
    write_video(clips / "2.mp4", first=5 * STEP)
    write_video(part / "3.mp4", count=7)
    write_frames(frames / "clip_a", 9)
    write_frames(frames / "clip_b", 4, first=9 * STEP)
    for name, questions in rows.items():
        (root / "json" / f"{name}.json").write_text(json.dumps(questions))
    return root


def videomme(root: Path) -> Path:
    """Three questions on two videos."""
    (root / "data").mkdir(parents=True)
    write_video(root / "data/one.mp4")
    write_video(root / "data/two.mkv", first=4 * STEP)
    options = ["A. red.", "B. blue.", "C. a.", "D. no."]
    rows = [
        {"video_id": "001", "duration": duration, "domain": "Knowledge", "task_type": "Counting",
         "sub_category": "Law", "url": "u", "videoID": video, "question_id": f"001-{number}",
         "question": "Which colour?", "options": options, "answer": answer}
        for number, (duration, video, answer) in enumerate(
            [("short", "one", "A"), ("short", "one", "C"), ("long", "two", "B")]
        )
    ]  # fmt: skip
    (root / "videomme").mkdir()
    table = datasets.Dataset.from_list(rows)
    table.to_parquet(root / "videomme" / "test-00000-of-00001.parquet")
    return root


TWINS = {"mvbench": mvbench, "videomme": videomme}
