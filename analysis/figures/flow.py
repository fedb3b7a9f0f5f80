"""Numbers of vision tokens in the encoder, the prefill and the KV cache while decoding.

Counts one ledger, or the mean over the samples of a run. Knows nothing about pictures.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from analysis.records.cells import RunResult
from mustdrop.ledger import TokenLedger


@dataclass(frozen=True, eq=False)
class Flow:
    """Numbers of vision tokens by stage.

    Attributes:
        encoder: Numbers at the input of each block and of the projector; two numbers for an
            unchanged encoder; empty if not recorded.
        entering: Numbers at the input of each decoder layer.
        resident: Numbers in the KV cache of each layer while decoding.
        key: Number of key tokens.
        patches: Number of tokens before any drop.
    """

    encoder: Sequence[float]
    entering: Sequence[float]
    resident: Sequence[float]
    key: float
    patches: float


def of_ledger(ledger: TokenLedger) -> Flow:
    """Token numbers of one sample, summed over its images."""
    blocks = [list(image.values()) for image in ledger.encoder]
    total = [float(sum(counts)) for counts in zip(*blocks, strict=True)]
    entering = [float(n) for n in ledger.vision_per_layer()]
    resident = [float(n) for n in ledger.resident_per_layer()]
    patches = total[0] if total else float(ledger.vision.sum())
    return Flow(
        total or [patches, patches], entering, resident, float(ledger.protected.sum()), patches
    )


def of_cell(cell: RunResult) -> Flow:
    """Mean over the samples of a run; the record has no numbers for the encoder."""
    model = cell["config"]["model"]
    entering, resident = (
        np.array(cell.samples[name].tolist(), dtype=float).mean(0).tolist()
        for name in ("vision_tokens", "resident_tokens")
    )
    return Flow([], entering, resident, 0.0, float(model.get("vision_tokens") or max(entering)))
