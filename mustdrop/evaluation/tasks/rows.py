"""Rows of a benchmark: parquet files of the hub or of a folder. Knows no task and no model."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset, Image, NamedSplit, disable_progress_bars, enable_progress_bars
from datasets.data_files import DataFilesDict, DataFilesList
from datasets.utils import are_progress_bars_disabled

from mustdrop.provenance.content import content_hash
from mustdrop.provenance.row_files import row_files

PICTURE = "image"
ONLY = "train"  # what the library calls the one split that it is given here


def load_rows(data: str, subset: str | None, split: str) -> Dataset:
    """One split of a data set, its ``image`` decoded when a row is read.

    Args:
        data: A folder, or a data set's name on the hub; see
            :func:`mustdrop.provenance.row_files.row_files` for the names of its files.
        subset: What the hub calls a configuration; None: there are none.
        split: The split's name.

    Raises:
        ValueError: If there are no such rows.
    """
    rows = _read(row_files(data, subset, split))
    if not len(rows):
        raise ValueError(f"split {split} of {data} is empty")
    return rows


def _read(files: Sequence[Path]) -> Dataset:
    # resolved here: given as text, the library would take a name for a pattern. Its cache goes by
    # the second list, so rows that were changed are read anew, whatever their time says.
    names = [str(path) for path in files]
    for name in names:
        if "::" in name or "$" in name:
            raise ValueError(
                f"{name} cannot be read: the library datasets takes '::' for an archive and '$' "
                "for a variable; rename the folder"
            )
    resolved = DataFilesList(names, [(content_hash(path),) for path in files])
    shown = not are_progress_bars_disabled()
    disable_progress_bars()
    try:
        given: Any = DataFilesDict({ONLY: resolved})  # accepted, though the signature omits it
        rows: Any = Dataset.from_parquet(given, split=NamedSplit(ONLY))
    finally:
        if shown:
            enable_progress_bars()
    if PICTURE in rows.features and not isinstance(rows.features[PICTURE], Image):
        rows = rows.cast_column(PICTURE, Image())
    return rows
