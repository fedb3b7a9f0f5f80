"""Pictures as a model may be shown them: whole, and with eight bits a channel. Knows no benchmark.

What happens to unusual pictures, as LLaVA's authors and lmms-eval do it: ``convert("RGB")`` drops
alpha channels and the transparency of palettes (the colour below is shown), turns CMYK, palettes,
grey and black-and-white to RGB, and shows the first frame of an animation. The library ``datasets``
turns a picture as its EXIF orientation says. A picture of one pixel, or of any aspect ratio, is
resized like any other.

Only brightness above eight bits is treated otherwise, as ``convert("RGB")`` clips it to white:

- 16-bit grey is divided by 257 and rounded, so that 0 becomes 0 and 65535 becomes 255.
- 32-bit integers and floats have no fixed range; they are refused.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image, TiffImagePlugin

# Pillow reads 16-bit files of these formats as 32-bit integers, scaled to 0 .. 65535.
SIXTEEN_BITS = ("PNG", "PPM")
BITS, PHOTOMETRIC, BLACK_IS_ZERO = 258, 262, 1  # tags of a TIFF file


def eight_bits(picture: Image.Image) -> Image.Image:
    """The picture, decoded, with at most eight bits a channel.

    Raises:
        ValueError: If its size is zero, or nothing says which value is white.
    """
    if 0 in picture.size:
        raise ValueError(f"an empty image, of size {picture.size}")
    picture.load()
    mode = picture.mode
    if mode.startswith("I;16") or (mode == "I" and picture.format in SIXTEEN_BITS):
        _require_full_range(picture)
        values = np.asarray(picture).astype(np.uint32)
        return Image.fromarray(((values + 128) // 257).astype(np.uint8))
    if mode in ("I", "F"):
        kind = "32-bit integers" if mode == "I" else "floats"
        raise ValueError(
            f"a picture of mode {mode} ({kind}), where nothing says which value is white: "
            "save it with 8 or 16 bits a channel"
        )
    return picture


def _require_full_range(picture: Image.Image) -> None:
    """Raise if the 16 bits of a TIFF file hold fewer (12, say), or count from white."""
    if not isinstance(picture, TiffImagePlugin.TiffImageFile):
        return
    bits = picture.tag_v2.get(BITS, (16,))
    photometric = picture.tag_v2.get(PHOTOMETRIC, BLACK_IS_ZERO)
    if set(bits if isinstance(bits, tuple) else (bits,)) != {16} or photometric != BLACK_IS_ZERO:
        raise ValueError(
            f"a TIFF picture of {bits} bits and photometric interpretation {photometric}: "
            "save it with 8 or 16 bits a channel, zero for black"
        )


def with_eight_bits(value: Any) -> Any:
    """A document, or a part of it, whose pictures went through :func:`eight_bits`."""
    if isinstance(value, Image.Image):
        return eight_bits(value)
    if isinstance(value, Mapping):
        return {name: with_eight_bits(part) for name, part in value.items()}
    return [with_eight_bits(part) for part in value] if isinstance(value, list) else value
