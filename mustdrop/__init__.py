"""mustdrop drops vision tokens of multimodal language models while encoding, prefill and decoding.

A strategy is one file in the package of its stage: ``from mustdrop.prefill import FastV``. A public
name is imported at its first use, so that ``import mustdrop`` loads neither torch nor transformers.
"""

import mustdrop.openmp  # noqa: F401  # isort: skip  # before torch loads
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mustdrop import presets
    from mustdrop.dropper import DropRun, TokenDropper
    from mustdrop.ledger import Counts, TokenLedger
    from mustdrop.reduction import Reduction
    from mustdrop.strategy import (
        DecodeStrategy,
        KeyTokenStrategy,
        PrefillStrategy,
        VisionStrategy,
    )

__all__ = [
    "Counts",
    "DecodeStrategy",
    "DropRun",
    "KeyTokenStrategy",
    "PrefillStrategy",
    "Reduction",
    "TokenDropper",
    "TokenLedger",
    "VisionStrategy",
    "__version__",
    "presets",
]

__version__ = "0.1.0.dev0"

_NAMES_BY_MODULE = {
    "dropper": ("DropRun", "TokenDropper"),
    "ledger": ("Counts", "TokenLedger"),
    "reduction": ("Reduction",),
    "strategy": ("DecodeStrategy", "KeyTokenStrategy", "PrefillStrategy", "VisionStrategy"),
}


def __getattr__(name: str) -> Any:
    if name == "presets":
        return import_module("mustdrop.presets")
    for module, names in _NAMES_BY_MODULE.items():
        if name in names:
            return getattr(import_module(f"mustdrop.{module}"), name)
    raise AttributeError(f"module 'mustdrop' has no attribute {name!r}")
