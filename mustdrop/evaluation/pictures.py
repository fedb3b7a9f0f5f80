"""Decode images completely, with eight bits a channel. Knows nothing about benchmarks.

Unusual images are treated as by LLaVA's authors and lmms-eval: ``convert("RGB")`` drops alpha
channels and the transparency of palettes (the colour below is shown), converts CMYK, palettes, grey
and black-and-white to RGB, and takes the first frame of an animation. The library ``datasets``
rotates an image as its EXIF orientation says. An image of one pixel, or of any aspect ratio, is
resized like any other.

Only brightness above eight bits is treated differently, because ``convert("RGB")`` clips it to
white:

- 16-bit grey is divided by 257 and rounded, so that 0 becomes 0 and 65535 becomes 255.
- 32-bit integers and floats have no fixed range; they are refused.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from traceback import walk_tb
from typing import Any

import numpy as np
from PIL import Image, TiffImagePlugin

# Pillow reads 16-bit files of these formats as 32-bit integers, scaled to 0 .. 65535.
SIXTEEN_BITS = ("PNG", "PPM")
BITS, PHOTOMETRIC, BLACK_IS_ZERO = 258, 262, 1  # tags of a TIFF file
ADDRESS = re.compile(r" <_io\.BytesIO object at 0x[0-9a-f]+>")  # differs from run to run


class UnreadableImage(ValueError):
    """An image that Pillow cannot decode."""


@contextmanager
def decoding(name: str = "an image") -> Iterator[None]:
    """A context in which an error of Pillow, whatever its type, is an unreadable image.

    Not so its limit of pixels, which is a setting of the process.

    Args:
        name: Name of the image in the message.

    Raises:
        UnreadableImage: If Pillow raises an error inside.
    """
    try:
        yield
    except (UnreadableImage, MemoryError, Image.DecompressionBombError):
        raise
    # A boundary: Pillow raises errors of any type for damaged files.
    except Exception as error:
        frames = walk_tb(error.__traceback__)
        if not any(frame.f_globals["__name__"].split(".")[0] == "PIL" for frame, _ in frames):
            raise
        reason = ADDRESS.sub("", str(error)) or type(error).__name__
        raise UnreadableImage(f"{name} cannot be read: {reason}") from error


def eight_bits(picture: Image.Image) -> Image.Image:
    """The image, decoded, with at most eight bits a channel.

    Raises:
        ValueError: If the size is zero, or the value of white is unknown.
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
            f"an image of mode {mode} ({kind}), whose value of white is unknown: "
            "save it with 8 or 16 bits a channel"
        )
    return picture


def _require_full_range(picture: Image.Image) -> None:
    """Raise an error if a TIFF file uses fewer than 16 bits (such as 12), or 0 for white."""
    if not isinstance(picture, TiffImagePlugin.TiffImageFile):
        return
    bits = picture.tag_v2.get(BITS, (16,))
    photometric = picture.tag_v2.get(PHOTOMETRIC, BLACK_IS_ZERO)
    if set(bits if isinstance(bits, tuple) else (bits,)) != {16} or photometric != BLACK_IS_ZERO:
        raise ValueError(
            f"a TIFF image of {bits} bits and photometric interpretation {photometric}: "
            "save it with 8 or 16 bits a channel, zero for black"
        )


def with_eight_bits(value: Any) -> Any:
    """A document, or a part of it, with :func:`eight_bits` applied to its images."""
    if isinstance(value, Image.Image):
        return eight_bits(value)
    if isinstance(value, Mapping):
        return {name: with_eight_bits(part) for name, part in value.items()}
    return [with_eight_bits(part) for part in value] if isinstance(value, list) else value
