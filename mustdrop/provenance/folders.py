"""Folders that a user names. A ``*``, ``[``, ``?`` or ``:`` in a name is taken literally."""

from pathlib import Path


def local_folder(name: str) -> Path | None:
    """Absolute path of an existing folder, with ``~`` expanded; None if there is none."""
    folder = Path(name)
    if not folder.is_dir() and folder.parts[:1] == ("~",):
        folder = folder.expanduser()
    return folder.absolute() if folder.is_dir() else None


def is_hub_name(name: str) -> bool:
    """Whether a name has the form owner/name of the hub; any other name means a folder."""
    folder = Path(name)
    return len(folder.parts) == 2 and not folder.is_absolute() and folder.parts[0] != "~"
