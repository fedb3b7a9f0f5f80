"""Finds the video files of a benchmark's folder and marks their content. Knows no task."""

import hashlib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from mustdrop.provenance.content import content_hash
from mustdrop.provenance.folders import local_folder
from mustdrop.provenance.row_files import row_files

SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".gif")
PICTURES = (".jpg", ".jpeg", ".png")
BLOCK = 4096  # bytes at the start and at the end of a video that its mark covers


def video_file(folder: Path, name: str) -> Path | None:
    """File of a video, whose name may lack its ending; None if there is none."""
    for ending in ("", *SUFFIXES):
        file = folder / f"{name}{ending}"
        if file.suffix.lower() in SUFFIXES and file.is_file():
            return file
    return None


def question_files(folder: Path, task: Mapping[str, Any]) -> list[Path]:
    """Files that must hold the questions of a benchmark of videos.

    Raises:
        ValueError: If they are parquet files, and there are none of the split.
    """
    if "sub_tasks" in task:
        return [folder / "json" / f"{name}.json" for name in task["sub_tasks"]]
    if "subset" in task:
        return row_files(str(folder), task["subset"], task["split"])
    return [folder / f"{task['split']}_{part}.json" for part in "qa"]


def video_inputs(label: str, task: Mapping[str, Any]) -> dict[str, str]:
    """Hash of the files of questions and of the folder of videos; empty if missing."""
    folder = local_folder(task["data"])
    if folder is None:
        return {}
    try:
        files = [file for file in question_files(folder, task) if file.is_file()]
    except ValueError:  # reading the rows reports it
        files = []
    names = {file.relative_to(folder).as_posix(): file for file in files}
    hashes = {f"{label}/{name}": content_hash(file) for name, file in names.items()}
    return {**hashes, f"{label}/{task['videos']}": videos_mark(folder / task["videos"])}


def frame_files(folder: Path) -> list[Path]:
    """Pictures of a folder that holds the frames of one video, in the order of their numbers."""
    files = [file for file in folder.iterdir() if file.suffix.lower() in PICTURES]
    return sorted(files, key=lambda file: (len(file.stem), file.stem))


def videos_mark(folder: Path) -> str:
    """Hash of twelve digits of a folder's videos: names, sizes, first and last bytes of each.

    Of a frame of a video that is a folder of pictures, only name and size enter.
    """
    kinds = (*SUFFIXES, *PICTURES)
    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in kinds)
    stats = ((file, file.stat()) for file in files)
    return _mark(folder, tuple((file, stat.st_size, stat.st_mtime_ns) for file, stat in stats))


@lru_cache(maxsize=64)
def _mark(folder: Path, states: tuple[tuple[Path, int, int], ...]) -> str:
    digest = hashlib.sha256()
    for path, size, _ in states:
        digest.update(f"{path.relative_to(folder).as_posix()} {size}\n".encode())
        if path.suffix.lower() in SUFFIXES:
            with path.open("rb") as file:
                digest.update(file.read(BLOCK))
                file.seek(max(0, size - BLOCK))
                digest.update(file.read(BLOCK))
    return digest.hexdigest()[:12]
