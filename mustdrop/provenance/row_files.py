"""Which parquet files hold a benchmark's rows. Opens none; knows no task and no model.

Names are names: a ``*``, ``[`` or ``?`` in that of a folder, a subset or a split means itself.
"""

from collections.abc import Sequence
from functools import lru_cache
from glob import escape
from pathlib import Path

from mustdrop.provenance.folders import is_hub_name, local_folder

QUESTIONS, PICTURES = "_instructions", "_images"  # how GQA's two subsets end


def row_files(data: str, subset: str | None, split: str, fetch: bool = True) -> list[Path]:
    """The files of one split, as the hub names them.

    They are ``<subset>/<split>-*.parquet``, or ``data/<split>-*.parquet`` where there is no subset.
    In a folder the files may also lie at its top, and ``<split>.parquet`` is one too. No other
    split is fetched.

    Args:
        data: A folder, or a data set's name on the hub.
        subset: What the hub calls a configuration; None: there are none.
        split: The split's name.
        fetch: Whether the hub may be asked; if not, its cache alone is looked into.

    Raises:
        ValueError: If there are no such files.
    """
    inside = [subset] if subset else ["data"]
    folder = local_folder(data)
    if folder is not None:
        files = _files(folder, [*inside, "."], split)
    elif not is_hub_name(data):
        raise ValueError(f"there is no folder {data}")
    else:
        patterns = tuple(f"{escape(name)}/{escape(split)}-*.parquet" for name in inside)
        files = _files(_fetched(data, patterns, fetch), inside, split)
    if not files:
        where = " or ".join(f"{name}/{split}-*.parquet" for name in inside)
        raise ValueError(f"{data} holds no {where}: no rows of split {split}")
    return files


def picture_subset(subset: str) -> str:
    """The subset with the pictures of a subset of questions."""
    return subset.removesuffix(QUESTIONS) + PICTURES


def subsets_read(subset: str | None) -> list[str | None]:
    """The subsets that a benchmark reads: its own, and the pictures of a subset of questions."""
    if subset is None or not subset.endswith(QUESTIONS):
        return [subset]
    return [subset, picture_subset(subset)]


def _files(folder: Path, subfolders: Sequence[str], split: str) -> list[Path]:
    """Those of the first subfolder that has any."""
    for name in subfolders:
        place = folder / name
        inside = place.iterdir() if place.is_dir() else ()
        found = sorted(path for path in inside if _is_split(path.name, split))
        if found:
            return found
    return []


def _is_split(name: str, split: str) -> bool:
    """Whether a file's name is that of a part of the split."""
    part = name.removeprefix(split)
    return part != name and (part == ".parquet" or (part[0] == "-" and part.endswith(".parquet")))


@lru_cache
def _fetched(name: str, patterns: tuple[str, ...], fetch: bool) -> Path:
    """The hub's files as a folder: from its cache where they are in it.

    One process asks the hub once, so that it never sees two states of a data set.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        found = snapshot_download(
            name, repo_type="dataset", allow_patterns=list(patterns), local_files_only=not fetch
        )
    except (OSError, HfHubHTTPError) as error:
        reason = str(error).strip().splitlines()[0].removeprefix("Got: ")
        raise ValueError(f"the hub's {name} cannot be had ({reason})") from error
    return Path(found)
