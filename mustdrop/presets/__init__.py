"""Presets: the yaml files of conf/ as configurations and as droppers."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mustdrop.presets.loading import load, names

__all__ = ["load", "names"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module("mustdrop.presets.loading"), name)
    raise AttributeError(f"module 'mustdrop.presets' has no attribute {name!r}")
