"""Finds the video files of a benchmark's folder and marks their content. Knows no task."""

import hashlib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from mustdrop.provenance.content import content_hash
from mustdrop.provenance.folders import local_folder

SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".gif")
BLOCK = 4096  # bytes at the start and at the end of a video that its mark covers


def video_file(folder: Path, name: str) -> Path | None:
    """File of a video, whose name may lack its ending; None if there is none."""
    for ending in ("", *SUFFIXES):
        file = folder / f"{name}{ending}"
        if file.suffix.lower() in SUFFIXES and file.is_file():
            return file
    return None


def video_inputs(label: str, task: Mapping[str, Any]) -> dict[str, str]:
    """Hash of the files of questions and answers and of the folder of videos; empty if missing."""
    folder = local_folder(task["data"])
    if folder is None:
        return {}
    files = [folder / f"{task['split']}_{part}.json" for part in "qa"]
    hashes = {f"{label}/{file.name}": content_hash(file) for file in files if file.is_file()}
    return {**hashes, f"{label}/{task['videos']}": videos_mark(folder / task["videos"])}


def videos_mark(folder: Path) -> str:
    """Hash of twelve digits of a folder's videos: names, sizes, first and last bytes of each."""
    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in SUFFIXES)
    states = tuple((file, file.stat().st_size, file.stat().st_mtime_ns) for file in files)
    return _mark(folder, states)


@lru_cache(maxsize=64)
def _mark(folder: Path, states: tuple[tuple[Path, int, int], ...]) -> str:
    digest = hashlib.sha256()
    for path, size, _ in states:
        with path.open("rb") as file:
            head = file.read(BLOCK)
            file.seek(max(0, size - BLOCK))
            tail = file.read(BLOCK)
        digest.update(f"{path.relative_to(folder).as_posix()} {size}\n".encode() + head + tail)
    return digest.hexdigest()[:12]
