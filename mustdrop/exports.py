"""Exports the classes of a package's files by name, so that a new file needs no entry anywhere."""

import re
from collections.abc import Callable, Iterable
from importlib import import_module
from pathlib import Path
from typing import Any

_CLASS = re.compile(r"^class ([A-Za-z]\w*)\b", re.MULTILINE)


def exports(
    package: str, folders: Iterable[str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """``__getattr__`` and ``__dir__`` of a package that export the public classes of its files.

    A file is imported when one of its classes is first used.

    Args:
        package: Name of the package.
        folders: Its ``__path__``.
    """

    def modules() -> dict[str, str]:
        files = sorted(file for folder in folders for file in Path(folder).glob("[a-z]*.py"))
        return {
            name: file.stem
            for file in files
            for name in _CLASS.findall(file.read_text(encoding="utf-8"))
        }

    def get_attribute(name: str) -> Any:
        if not name.startswith("_") and (module := modules().get(name)):
            return getattr(import_module(f"{package}.{module}"), name)
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return get_attribute, lambda: sorted(modules())
