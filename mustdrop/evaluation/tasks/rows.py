"""Read rows of a benchmark from parquet files, on the hub or in a folder. Knows no tasks."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset, Image, NamedSplit, disable_progress_bars, enable_progress_bars
from datasets.data_files import DataFilesDict, DataFilesList
from datasets.utils import are_progress_bars_disabled

from mustdrop.provenance.content import content_hash
from mustdrop.provenance.row_files import row_files

PICTURE = "image"
ONLY = "train"  # name that the library gives to a single unnamed split


def load_rows(data: str, subset: str | None, split: str) -> Dataset:
    """One split of a data set; its ``image`` is decoded when a row is read.

    Args:
        data: Folder, or name of a data set on the hub; see
            :func:`mustdrop.provenance.row_files.row_files` for the file names.
        subset: Name of a configuration on the hub; None if the data set has none.
        split: Name of the split.

    Raises:
        ValueError: If the rows do not exist.
    """
    rows = _read(row_files(data, subset, split))
    if not len(rows):
        raise ValueError(f"split {split} of {data} is empty")
    return rows


def _read(files: Sequence[Path]) -> Dataset:
    # Resolved here, because the library would read a name as a pattern. The second list is the key
    # of its cache, so changed rows are read again even if their file times are equal.
    names = [str(path) for path in files]
    for name in names:
        if "::" in name or "$" in name:
            raise ValueError(
                f"{name} cannot be read: the library datasets reads '::' as an archive and '$' as "
                "a variable; rename the folder"
            )
    resolved = DataFilesList(names, [(content_hash(path),) for path in files])
    bars_enabled = not are_progress_bars_disabled()
    disable_progress_bars()
    try:
        data_files: Any = DataFilesDict({ONLY: resolved})  # accepted, though the signature omits it
        rows: Any = Dataset.from_parquet(data_files, split=NamedSplit(ONLY))
    finally:
        if bars_enabled:
            enable_progress_bars()
    # Bytes or paths not marked as images; beside a column of images it is a name (MathVista).
    if PICTURE in rows.features and not picture_columns(rows):
        rows = rows.cast_column(PICTURE, Image())
    return rows


def picture_columns(rows: Dataset) -> list[str]:
    """Names of the columns that hold images."""
    return [name for name, kind in rows.features.items() if isinstance(kind, Image)]
