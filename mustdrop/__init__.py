"""mustdrop: dropping vision tokens of multimodal language models over their whole life.

Strategies live in their rooms, one file each: ``from mustdrop.prefill.fastv import FastV``. Names
are fetched when first asked for, so that reading records costs no import of transformers.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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
]

_HOME = {
    "dropper": ("DropRun", "TokenDropper"),
    "ledger": ("Counts", "TokenLedger"),
    "reduction": ("Reduction",),
    "strategy": ("DecodeStrategy", "KeyTokenStrategy", "PrefillStrategy", "VisionStrategy"),
}


def __getattr__(name: str) -> Any:
    for module, names in _HOME.items():
        if name in names:
            return getattr(import_module(f"mustdrop.{module}"), name)
    raise AttributeError(f"module 'mustdrop' has no attribute {name!r}")
