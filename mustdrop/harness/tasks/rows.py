"""Rows of a benchmark: parquet files of the hub or of a folder. Knows no task and no model."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset, Image, disable_progress_bars, enable_progress_bars
from datasets.utils import are_progress_bars_disabled
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError

PICTURE = "image"


def load_rows(data: str, subset: str | None, split: str) -> Dataset:
    """One split of a data set, its ``image`` decoded when a row is read.

    Files are found by their names, as the hub has them: ``<subset>/<split>-*.parquet``, or
    ``data/<split>-*.parquet`` where there is no subset. In a folder the files may also lie at its
    top, and ``<split>.parquet`` is one too. No other split is fetched.

    Args:
        data: A folder, or a data set's name on the hub.
        subset: What the hub calls a configuration; None: there are none.
        split: The split's name.

    Raises:
        ValueError: If there are no such rows.
    """
    places = [subset] if subset else ["data"]
    folder = Path(data).expanduser()
    if folder.is_dir():
        files = _files(folder, [*places, "."], split)
    elif folder.is_absolute() or len(folder.parts) != 2:
        raise ValueError(f"there is no folder {data}")
    else:
        folder = _fetched(data, [f"{place}/{split}-*.parquet" for place in places])
        files = _files(folder, places, split)
    if not files:
        where = " or ".join(f"{place}/{split}-*.parquet" for place in places)
        raise ValueError(f"{data} holds no {where}: no rows of split {split}")
    rows = _read(files)
    if not len(rows):
        raise ValueError(f"split {split} of {data} is empty")
    return rows


def _files(folder: Path, places: Sequence[str], split: str) -> list[str]:
    """Those of the first place that has any."""
    for place in places:
        found = sorted(
            path
            for pattern in (f"{split}.parquet", f"{split}-*.parquet")
            for path in (folder / place).glob(pattern)
        )
        if found:
            return [str(path) for path in found]
    return []


def _fetched(name: str, patterns: list[str]) -> Path:
    """The hub's files as a folder: from its cache where they are in it."""
    try:
        return Path(snapshot_download(name, repo_type="dataset", allow_patterns=patterns))
    except (OSError, HfHubHTTPError) as error:
        reason = str(error).strip().splitlines()[0].removeprefix("Got: ")
        raise ValueError(f"the hub's {name} cannot be had ({reason})") from error


def _read(files: list[str]) -> Dataset:
    shown = not are_progress_bars_disabled()
    disable_progress_bars()
    try:
        rows: Any = Dataset.from_parquet(list[Any](files))
    finally:
        if shown:
            enable_progress_bars()
    if PICTURE in rows.features and not isinstance(rows.features[PICTURE], Image):
        rows = rows.cast_column(PICTURE, Image())
    return rows
