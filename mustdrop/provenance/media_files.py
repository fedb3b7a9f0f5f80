"""Marks the content of videos, and of the media of a user's own questions. Knows no task."""

import hashlib
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from mustdrop.provenance.content import content_hash
from mustdrop.provenance.folders import local_folder
from mustdrop.provenance.row_files import row_files

SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".gif")
PICTURES = (".jpg", ".jpeg", ".png")
BLOCK = 4096  # bytes at the start and at the end of a file that its mark covers


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
    return {**hashes, f"{label}/{task['media']}": _mark(media, _states(shown), ())}


def frame_files(folder: Path) -> list[Path]:
    """Pictures of a folder that holds the frames of one video, in the order of their numbers."""
    files = [file for file in folder.iterdir() if file.suffix.lower() in PICTURES]
    return sorted(files, key=lambda file: (len(file.stem), file.stem))


def videos_mark(folder: Path) -> str:
    """Hash of twelve digits of a folder's videos: names, sizes, first and last bytes of each.

    Of a frame of a video that is a folder of pictures, only name and size enter.
    """
    kinds = (*SUFFIXES, *PICTURES)
    files = (file for file in folder.rglob("*") if file.suffix.lower() in kinds)
    return _mark(folder, _states(files), PICTURES)


State = tuple[Path, int, int]  # a file with its size and the time of its last change


def _states(files: Iterable[Path]) -> tuple[State, ...]:
    stats = ((file, file.stat()) for file in sorted(files))
    return tuple((file, stat.st_size, stat.st_mtime_ns) for file, stat in stats)


def _is_hidden(file: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in file.relative_to(folder).parts)


@lru_cache(maxsize=64)
def _mark(folder: Path, states: tuple[State, ...], unread: tuple[str, ...]) -> str:
    """Hash of names, sizes and ends of files; of those with the endings ``unread`` no bytes."""
    digest = hashlib.sha256()
    for path, size, _ in states:
        digest.update(f"{path.relative_to(folder).as_posix()} {size}\n".encode())
        if path.suffix.lower() not in unread:
            with path.open("rb") as file:
                digest.update(file.read(BLOCK))
                file.seek(max(0, size - BLOCK))
                digest.update(file.read(BLOCK))
    return digest.hexdigest()[:12]
