"""Marks the content of videos, and of the media of a user's own questions. Knows no task."""

import hashlib
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from mustdrop.provenance.content import content_hash
from mustdrop.provenance.folders import local_folder

SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".gif")
BLOCK = 4096  # bytes at the start and at the end of a file that its mark covers


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


def question_inputs(label: str, task: Mapping[str, Any]) -> dict[str, str]:
    """Hash of the file of a user's questions and of the folder of media; empty if missing."""
    folder = local_folder(task["data"])
    if folder is None:
        return {}
    files = [folder / f"{task['split']}.{ending}" for ending in ("jsonl", "parquet")]
    hashes = {f"{label}/{file.name}": content_hash(file) for file in files if file.is_file()}
    media = folder / task["media"]
    # an image may have any ending
    shown = [file for file in media.rglob("*") if file.is_file() and not _is_hidden(file, media)]
    return {**hashes, f"{label}/{task['media']}": files_mark(media, shown)}


def videos_mark(folder: Path) -> str:
    """Mark of a folder's videos."""
    return files_mark(folder, (f for f in folder.rglob("*") if f.suffix.lower() in SUFFIXES))


def files_mark(folder: Path, among: Iterable[Path]) -> str:
    """Hash of twelve digits of some files of a folder: names, sizes, first and last bytes."""
    files = sorted(among)
    states = tuple((file, file.stat().st_size, file.stat().st_mtime_ns) for file in files)
    return _mark(folder, states)


def _is_hidden(file: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in file.relative_to(folder).parts)


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
