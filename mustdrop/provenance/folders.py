"""Folders that a user names. A ``*``, ``[``, ``?`` or ``:`` in a name means itself."""

from pathlib import Path


def local_folder(name: str) -> Path | None:
    """The folder of this name, ``~`` standing for the user's own; None: there is none."""
    folder = Path(name)
    if not folder.is_dir() and folder.parts[:1] == ("~",):
        folder = folder.expanduser()
    return folder.absolute() if folder.is_dir() else None


def is_hub_name(name: str) -> bool:
    """Whether a name can be one of the hub's, owner/name; anything else is meant as a folder."""
    folder = Path(name)
    return len(folder.parts) == 2 and not folder.is_absolute() and folder.parts[0] != "~"
