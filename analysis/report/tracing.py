"""Traces of runs in the form that the page contains: unique pictures, a few bytes per patch.

A trace without pictures (a ledger alone) is shown without them. A trace whose patches have no grid
is counted and left out. Knows nothing about scores.
"""

import base64
import hashlib
import io
from dataclasses import dataclass, field
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

SIDE, LARGE, QUALITY = 256, 6000, 50  # pixels, bytes, WebP quality


@dataclass(eq=False)
class Traces:
    """Data of all traces on the page.

    Attributes:
        pictures: Unique image files, in Base64.
        words: Unique lists of words.
        fates: Planes of all images, one after the other.
        imageless: Number of traces left out, because their prompt has no image.
        torn: Number of traces left out, because they cannot be read.
    """

    pictures: list[str] = field(default_factory=list)
    words: list[list[str]] = field(default_factory=list)
    fates: bytearray = field(default_factory=bytearray)
    imageless: int = 0
    torn: int = 0
    _indices: dict[Any, int] = field(default_factory=dict)

    def add(self, folder: Path | str, doc_id: int) -> dict[str, Any] | None:
        """Add the trace of one sample of a run; return None if it is missing or cannot be shown.

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
        """Entry of a trace on the page; None if its prompt has no image."""
        images = len(trace.ledger.grids)
        if not images:
            self.imageless += 1
            return None
        return {
            "gamma": trace.threshold("gamma"),
            "alpha": trace.threshold("alpha"),
            "words": self._index(self.words, list(trace.words), tuple(trace.words)),
            "images": [self._image(trace, number) for number in range(images)],
        }

    def _image(self, trace: Trace, number: int) -> dict[str, Any]:
        """Entry of one image of a trace."""
        fates = patch_fates(trace, number)
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
            "start": start,
            "sizes": sizes,
            "picture": picture,
            "region": None if region is None else np.flatnonzero(region).tolist(),
        }

    def _picture(self, encoded: bytes) -> int:
        """Index of a picture, which is added if it is new."""
        key = hashlib.sha256(encoded).digest()
        if key not in self._indices:
            return self._index(self.pictures, base64.b64encode(light(encoded)).decode(), key)
        return self._indices[key]

    def _index(self, kept: list[Any], value: Any, key: Any) -> int:
        """Index of a value in a list; a new value is appended."""
        if key not in self._indices:
            self._indices[key] = len(kept)
            kept.append(value)
        return self._indices[key]


def light(encoded: bytes) -> bytes:
    """Return a small picture unchanged; scale down and re-encode a large one."""
    if len(encoded) <= LARGE:
        return encoded
    picture = Image.open(io.BytesIO(encoded)).convert("RGB")
    picture.thumbnail((SIDE, SIDE))
    out = io.BytesIO()
    picture.save(out, "WEBP", quality=QUALITY, method=6)
    return min(out.getvalue(), encoded, key=len)
