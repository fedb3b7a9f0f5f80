"""Pack the fates of patches into bytes: one plane per quantity, with one byte per patch.

Planes of similar numbers compress well. The page's data.js unpacks them. Knows nothing about runs.
"""

import numpy as np

from analysis.records.patches import PatchFates

# Names of the planes in their order. In ``left``, 0 is the encoder and 1 is before layer 0.
PLANES = ("left", "reason", "group", "group_high", "word", "share", "largest", "resident")
KEY_BIT = 128  # bit for key tokens in the plane ``reason``
NONE = 255  # no word
SMALLEST = 1.0e-6  # smaller attention is stored as this value


def packed(fates: PatchFates) -> tuple[bytes, list[int]]:
    """Planes of an image, and the number of patches in each group that is merged into one token.

    Groups are numbered from 1 in raster order; 0: the patch is not merged.

    Raises:
        ValueError: If the model has more layers than a byte can hold.
    """
    if fates.depth > 252:
        raise ValueError(f"expected at most 252 layers, got {fates.depth}")
    merged = fates.carried > 1
    tokens, first = np.unique(fates.token[merged], return_index=True)
    number = np.empty(len(tokens), dtype=np.int64)
    number[np.argsort(first)] = np.arange(1, len(tokens) + 1)
    group = np.zeros(len(fates.token), dtype=np.int64)
    group[merged] = number[np.searchsorted(tokens, fates.token[merged])]
    sizes = np.zeros(len(tokens), dtype=np.int64)
    sizes[number - 1] = fates.carried[merged][first]
    planes = {
        "left": fates.left + 2,
        "reason": fates.reason + KEY_BIT * fates.key,
        "group": group % 256,
        "group_high": group // 256,
        "word": np.where(fates.word < 0, NONE, np.minimum(fates.word, NONE - 1)),
        "share": _logarithmic(fates.share),
        "largest": _logarithmic(fates.largest),
        "resident": fates.resident,
    }
    return np.stack([planes[name] for name in PLANES]).astype(np.uint8).tobytes(), sizes.tolist()


def _logarithmic(attention: np.ndarray) -> np.ndarray:
    """Code attention from ``SMALLEST`` to 1 as 1 to 255, in steps of 5.6 %; 0: unknown."""
    known = np.where(np.isnan(attention), 1.0, attention)
    decades = np.log10(np.clip(known, SMALLEST, 1) / SMALLEST)
    codes = 1 + np.rint(254 * decades / -np.log10(SMALLEST))
    return np.where(np.isnan(attention), 0, codes)
