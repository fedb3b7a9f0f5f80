"""mustdrop: dropping vision tokens of multimodal language models over their whole life.

Strategies live in their rooms, one file each: ``from mustdrop.prefill.fastv import FastV``.
"""

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
