"""Folders of the configs: the packaged ones, and the user's own in the working folder."""

from importlib.util import find_spec
from pathlib import Path


def conf_dir() -> Path:
    """Folder of the configs: inside an installed package, or next to it in a checkout."""
    spec = find_spec("mustdrop")
    assert spec is not None and spec.origin is not None
    package = Path(spec.origin).parent
    inside = package / "conf"
    return inside if inside.is_dir() else package.parent / "conf"


def user_dir() -> Path | None:
    """The user's own configs: ``conf`` in the working folder; None if that is missing or packaged.

    Hydra looks there for names that the packaged configs do not have.
    """
    folder = Path.cwd() / "conf"
    return folder if folder.is_dir() and folder.resolve() != conf_dir().resolve() else None


def user_configs() -> list[str]:
    """Overrides that add the user's own configs to Hydra's search path."""
    folder = user_dir()
    if folder is None:
        return []
    quoted = str(folder).replace("\\", "\\\\").replace("'", "\\'")
    return [f"hydra.searchpath=['file://{quoted}']"]


def preset_file(*parts: str) -> Path:
    """Path of a config file: the packaged one, else the user's own, whether it exists or not."""
    packaged, folder = conf_dir().joinpath(*parts), user_dir()
    if packaged.is_file() or folder is None:
        return packaged
    return folder.joinpath(*parts)


def preset_names(group: str) -> list[str]:
    """Names of the presets of a group, those of the user's own configs included."""
    folders = [folder for folder in (conf_dir(), user_dir()) if folder is not None]
    return sorted({path.stem for folder in folders for path in (folder / group).glob("*.yaml")})


def tuned_dir() -> Path:
    """Folder for new thresholds: conf/tuned of a checkout, or of the working folder."""
    packaged = conf_dir()
    in_checkout = (packaged.parent / "pyproject.toml").is_file()
    return (packaged if in_checkout else Path.cwd() / "conf") / "tuned"
