"""Traces of runs in the form that the page contains: unique pictures, a few bytes per patch.

A trace without pictures (a ledger alone) is shown without them. Crops are shown together, where
they lie in their picture. Frames of a video are entries each, which the page can show together.
Knows nothing about scores.
"""

import base64
import hashlib
import io
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from math import isqrt
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from analysis.records.frames import frame_names, frames_of_videos
from analysis.records.left_out import leave_out
from analysis.records.mosaics import CropMosaic, crop_mosaics
from analysis.records.patches import PatchFates, patch_fates
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

    def add(
        self, folder: Path | str, doc_id: int, frames: int | None = None
    ) -> dict[str, Any] | None:
        """Add the trace of one sample of a run; return None if it is missing or cannot be shown.

        Args:
            folder: Folder of the run.
            doc_id: Document id of the sample.
            frames: Number of frames of a video that the model was given; None: not known.

        Warns:
            LeftOut: If the trace is torn.
        """
        path = trace_path(Path(folder), doc_id)
        if not path.exists():
            return None
        trace = read_trace(folder, doc_id)
        try:
            shown = self._shown(trace, frames) if trace is not None else None
        except (KeyError, IndexError, ValueError, OSError) as error:
            leave_out(f"{path} cannot be shown: {error}")
            trace = shown = None
        self.torn += trace is None
        return shown

    def _shown(self, trace: Trace, frames: int | None = None) -> dict[str, Any] | None:
        """Entry of a trace on the page; None if its prompt has no image."""
        ledger = trace.ledger
        if not ledger.grids:
            self.imageless += 1
            return None
        return {
            "slots": int(ledger.vision.sum()),
            "gamma": trace.threshold("gamma"),
            "alpha": trace.threshold("alpha"),
            "words": self._index(self.words, list(trace.words), tuple(trace.words)),
            **self._images(trace, frames),
        }

    def _images(self, trace: Trace, frames: int | None = None) -> dict[str, Any]:
        """Entries of the images of a trace, and its videos; the crops of a picture are one entry.

        A video of several frames is given by its first entry, the number of its entries, and the
        number of frames in a row when all of them are shown together.
        """
        mosaics = {mosaic.images.start: mosaic for mosaic in crop_mosaics(trace.ledger)}
        labels, videos, counts = {}, [], dict(trace.ledger.videos)
        for video in frames_of_videos(trace.ledger):
            names = frame_names(len(video), frames)
            labels |= {index: f"frame {name}" for index, name in zip(video, names, strict=True)}
        entries, number = [], 0
        while number < len(trace.ledger.grids):
            mosaic, picture = mosaics.get(number), None
            if mosaic is not None:
                label, fates = "crops in place", mosaic.fates(trace)
                if trace.pictures:
                    picture = self._mosaic_picture(trace, mosaic)
                number = mosaic.images.stop
            else:
                label = "whole image" if number + 1 in mosaics else labels.get(number, "")
                count = counts.get(number, 0)
                if count > 1:
                    columns = columns_of(count)
                    videos.append({"first": len(entries), "count": count, "columns": columns})
                fates = patch_fates(trace, number)
                if number < len(trace.pictures):
                    content = trace.pictures[number]
                    picture = self._picture(content, partial(light, content))
                number += 1
            entries.append(self._image(trace, label, fates, picture))
        return {"images": entries, "videos": videos}

    def _image(
        self, trace: Trace, label: str, fates: PatchFates, picture: int | None
    ) -> dict[str, Any]:
        """Entry of patches that are shown together, with the index of their picture."""
        planes, sizes = packed(fates)
        region = trace.region
        if region is not None and (region.shape != fates.grid or not region.any()):
            region = None
        start = len(self.fates)
        self.fates += planes
        return {
            "label": label,
            "grid": fates.grid,
            "tokens": fates.tokens,
            "start": start,
            "sizes": sizes,
            "picture": picture,
            "region": None if region is None else np.flatnonzero(region).tolist(),
        }

    def _mosaic_picture(self, trace: Trace, mosaic: CropMosaic) -> int:
        """Index of the picture of a mosaic, with as many pixels per patch as a single picture."""
        crops = b"".join(trace.pictures[image] for image in mosaic.images)
        layout = repr((mosaic.shape, mosaic.rows, mosaic.columns)).encode()
        side = SIDE * max(mosaic.shape)
        return self._picture(crops + layout, lambda: webp(mosaic.picture(trace), side))

    def _picture(self, identity: bytes, encode: Callable[[], bytes]) -> int:
        """Index of the picture with this identity; a new one is encoded and added."""
        key = hashlib.sha256(identity).digest()
        if key not in self._indices:
            return self._index(self.pictures, base64.b64encode(encode()).decode(), key)
        return self._indices[key]

    def _index(self, kept: list[Any], value: Any, key: Any) -> int:
        """Index of a value in a list; a new value is appended."""
        if key not in self._indices:
            self._indices[key] = len(kept)
            kept.append(value)
        return self._indices[key]


def columns_of(count: int) -> int:
    """Least number of pictures in a row that fills all rows, and is not below that of the rows."""
    return next(n for n in range(isqrt(count - 1) + 1, count + 1) if count % n == 0)


def light(encoded: bytes) -> bytes:
    """Return a small picture unchanged; scale down and re-encode a large one."""
    if len(encoded) <= LARGE:
        return encoded
    picture = Image.open(io.BytesIO(encoded)).convert("RGB")
    return min(webp(picture, SIDE), encoded, key=len)


def webp(picture: Image.Image, side: int) -> bytes:
    """Encode a picture as WebP, scaled down in place to this longest side in pixels."""
    picture.thumbnail((side, side))
    out = io.BytesIO()
    picture.save(out, "WEBP", quality=QUALITY, method=6)
    return out.getvalue()
