"""How many vision tokens a run had where: in the encoder, the prefill, the cache while decoding.

Of one ledger, or the mean over a run's samples. Knows nothing about pictures.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from analysis.records.cells import RunResult
from mustdrop.ledger import TokenLedger


@dataclass(frozen=True, eq=False)
class Flow:
    """How many vision tokens there were where.

    Attributes:
        encoder: Tokens at the input of each block, and at the projector's; of an encoder that was
            left alone two numbers; empty if that is not on record.
        entering: Tokens at the input of each decoder layer.
        resident: Tokens in each layer's KV cache while decoding.
        key: Key tokens, never dropped.
        patches: Tokens of the picture before anything left.
    """

    encoder: Sequence[float]
    entering: Sequence[float]
    resident: Sequence[float]
    key: float
    patches: float


def of_ledger(ledger: TokenLedger) -> Flow:
    """The flow of one sample, its images together."""
    blocks = [list(image.values()) for image in ledger.encoder]
    total = [float(sum(counts)) for counts in zip(*blocks, strict=True)]
    entering = [float(n) for n in ledger.vision_per_layer()]
    resident = [float(n) for n in ledger.resident_per_layer()]
    patches = total[0] if total else float(ledger.vision.sum())
    return Flow(
        total or [patches, patches], entering, resident, float(ledger.protected.sum()), patches
    )


def of_cell(cell: RunResult) -> Flow:
    """The mean over a run's samples; what happened in the encoder is not on record."""
    model = cell["config"]["model"]
    entering, resident = (
        np.array(cell.samples[name].tolist(), dtype=float).mean(0).tolist()
        for name in ("vision_tokens", "resident_tokens")
    )
    return Flow([], entering, resident, 0.0, float(model.get("vision_tokens") or max(entering)))
