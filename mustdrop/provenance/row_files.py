"""Finds the parquet files of a benchmark's rows. Does not open them; knows no task and no model.

A ``*``, ``[`` or ``?`` in the name of a folder, subset or split is taken literally.
"""

from collections.abc import Sequence
from functools import lru_cache
from glob import escape
from pathlib import Path

from mustdrop.provenance.folders import is_hub_name, local_folder

QUESTIONS, PICTURES = "_instructions", "_images"  # suffixes of GQA's two subsets


def row_files(data: str, subset: str | None, split: str, fetch: bool = True) -> list[Path]:
    """Files of one split, which are downloaded if necessary.

    Their names on the hub are ``<subset>/<split>-*.parquet``, or ``data/<split>-*.parquet`` without
    a subset. In a local folder the files may also be at the top level, and ``<split>.parquet``
    counts as well. No other split is downloaded.

    Args:
        data: Folder, or name of a data set on the hub.
        subset: Subset, which the hub calls configuration; None if the data set has none.
        split: Name of the split.
        fetch: Whether to use the network; if not, only the hub's local cache is searched.

    Raises:
        ValueError: If there are no such files.
    """
    subfolder = subset or "data"
    folder = local_folder(data)
    if folder is not None:
        files = _files(folder, [subfolder, "."], split)
    elif not is_hub_name(data):
        raise ValueError(f"there is no folder {data}")
    else:
        pattern = f"{escape(subfolder)}/{escape(split)}-*.parquet"
        files = _files(_fetched(data, pattern, fetch), [subfolder], split)
    if not files:
        raise ValueError(
            f"{data} has no files {subfolder}/{split}-*.parquet, so no rows of split {split}"
        )
    return files


def picture_subset(subset: str) -> str:
    """Name of the subset with the images for a subset of questions."""
    return subset.removesuffix(QUESTIONS) + PICTURES


def subsets_read(subset: str | None) -> list[str | None]:
    """Subsets that a benchmark reads: the given one and, for questions, that of their images."""
    if subset is None or not subset.endswith(QUESTIONS):
        return [subset]
    return [subset, picture_subset(subset)]


def _files(folder: Path, subfolders: Sequence[str], split: str) -> list[Path]:
    """Files of the split in the first subfolder that has any."""
    for name in subfolders:
        subfolder = folder / name
        paths = subfolder.iterdir() if subfolder.is_dir() else ()
        files = sorted(path for path in paths if _is_split(path.name, split))
        if files:
            return files
    return []


def _is_split(name: str, split: str) -> bool:
    """Whether a file of this name is a part of the split."""
    part = name.removeprefix(split)
    return part != name and (part == ".parquet" or (part[0] == "-" and part.endswith(".parquet")))


@lru_cache
def _fetched(name: str, pattern: str, fetch: bool) -> Path:
    """Folder of the hub's cache with the files of a pattern, downloaded if necessary.

    Done once per process, so that a process never sees two states of a data set.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        folder = snapshot_download(
            name, repo_type="dataset", allow_patterns=[pattern], local_files_only=not fetch
        )
    except (OSError, HfHubHTTPError) as error:
        reason = str(error).strip().splitlines()[0].removeprefix("Got: ")
        raise ValueError(f"{name} cannot be downloaded from the hub ({reason})") from error
    return Path(folder)
