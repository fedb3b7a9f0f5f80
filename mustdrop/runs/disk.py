"""Writes files of a run: whole or not at all, and with one message when the disk refuses."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class Unwritable(ValueError):
    """The disk is full, or the folder is not writable."""


@contextmanager
def writing(folder: Path, kept: str = "") -> Iterator[None]:
    """A context that turns errors of writing to a folder into one clear message.

    Args:
        folder: Folder of the run.
        kept: Text about what is not lost, for the message.

    Raises:
        Unwritable: For any OSError.
    """
    try:
        yield
    except OSError as error:
        raise Unwritable(
            f"cannot write to {folder}: {error.strerror or error}{kept}; the same command "
            "continues when the cause is removed"
        ) from error


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Replace a JSON file in one step."""
    replace_text(path, json.dumps(value, indent=1) + "\n")


def replace_text(path: Path, text: str) -> None:
    """Replace a file in one step, so that a reader never sees half of it."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
