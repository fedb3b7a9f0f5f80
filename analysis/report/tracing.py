"""The traces of runs as the page holds them: each picture once, each patch a few bytes.

A trace without pictures (a ledger alone) is told without, and one whose patches have no grid is
counted and left out. Knows nothing about scores.
"""

import base64
import hashlib
import io
from dataclasses import dataclass, field
from math import isnan, isqrt
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from analysis.records.left_out import leave_out
from analysis.records.patches import patch_fates
from analysis.records.traces import read_trace
from analysis.report.packing import packed
from mustdrop.runs.folder import trace_path
from mustdrop.runs.trace import Trace

SIDE, HEAVY, QUALITY = 256, 6000, 50  # pixels, bytes, of WebP


@dataclass(eq=False)
class Traces:
    """All that the page holds of traces.

    Attributes:
        pictures: Base64 of an image file each, no two alike.
        words: Lists of words, no two alike.
        fates: The planes of all images, one after the other.
        gridless: Number of traces left out, since the patches of a picture have no grid.
        torn: Number of traces left out, since they cannot be read.
    """

    pictures: list[str] = field(default_factory=list)
    words: list[list[str]] = field(default_factory=list)
    fates: bytearray = field(default_factory=bytearray)
    gridless: int = 0
    torn: int = 0
    _places: dict[Any, int] = field(default_factory=dict)

    def add(self, folder: Path | str, doc_id: int) -> dict[str, Any] | None:
        """Take up the trace of one sample of a run; None if there is none that can be shown.

        Warns:
            LeftOut: If the trace is torn.
        """
        path = trace_path(Path(folder), doc_id)
        if not path.exists():
            return None
        trace = read_trace(folder, doc_id)
        try:
            shown = self._shown(trace) if trace is not None else None
        except (KeyError, IndexError, ValueError, OSError) as error:
            leave_out(f"{path} cannot be shown: {error}")
            trace = shown = None
        self.torn += trace is None
        return shown

    def _shown(self, trace: Trace) -> dict[str, Any] | None:
        """A trace as the page holds it; None if its patches have no grid."""
        images = max(len(trace.ledger.sources), len(trace.pictures), 1)
        grid = _grid(trace, images)
        if not trace.ledger.sources and grid is None:
            self.gridless += 1
            return None
        return {
            "gamma": None if isnan(trace.gamma) else trace.gamma,
            "alpha": None if isnan(trace.alpha) else trace.alpha,
            "words": self._once(self.words, list(trace.words), tuple(trace.words)),
            "images": [self._image(trace, number, grid) for number in range(images)],
        }

    def _image(self, trace: Trace, number: int, grid: tuple[int, int] | None) -> dict[str, Any]:
        fates = patch_fates(trace, number, grid)
        planes, sizes = packed(fates)
        picture = None
        if number < len(trace.pictures):
            picture = self._picture(trace.pictures[number])
        region = trace.region if trace.region is not None and trace.region.any() else None
        start = len(self.fates)
        self.fates += planes
        return {
            "grid": fates.grid,
            "tokens": fates.tokens,
            "at": start,
            "sizes": sizes,
            "picture": picture,
            "region": None if region is None else np.flatnonzero(region).tolist(),
        }

    def _picture(self, encoded: bytes) -> int:
        key = hashlib.sha256(encoded).digest()
        if key not in self._places:
            return self._once(self.pictures, base64.b64encode(light(encoded)).decode(), key)
        return self._places[key]

    def _once(self, kept: list[Any], value: Any, key: Any) -> int:
        """The place of a value, which is kept if it is new."""
        if key not in self._places:
            self._places[key] = len(kept)
            kept.append(value)
        return self._places[key]


def light(encoded: bytes) -> bytes:
    """A picture as it is if it is small, else scaled down and encoded again."""
    if len(encoded) <= HEAVY:
        return encoded
    picture = Image.open(io.BytesIO(encoded)).convert("RGB")
    picture.thumbnail((SIDE, SIDE))
    out = io.BytesIO()
    picture.save(out, "WEBP", quality=QUALITY, method=6)
    return min(out.getvalue(), encoded, key=len)


def _grid(trace: Trace, images: int) -> tuple[int, int] | None:
    """One image's grid where the ledger has no sources: the answer's, or a square one."""
    if trace.ledger.sources:
        return None
    size, rest = divmod(int(trace.ledger.vision.sum()), images)
    if trace.region is not None and not rest and trace.region.size == size:
        return trace.region.shape[0], trace.region.shape[1]
    side = isqrt(size)
    return (side, side) if size and not rest and side * side == size else None
