"""Small encoded images of the kinds that stock benchmarks hold: modes, formats, sizes."""

from collections.abc import Callable
from io import BytesIO
from typing import Any

from PIL import Image

ROTATED = 6  # EXIF orientation of a phone held upright: shown turned by a quarter
ORIENTATION = 0x0112  # EXIF tag


def plain(number: int, size: tuple[int, int] = (48, 32)) -> Image.Image:
    """An image of one colour, another one for each number, with one dark corner."""
    image = Image.new("RGB", size, (37 * number % 256, 91 * number % 256, 200))
    image.putpixel((0, 0), (10, 10, 10))
    return image


def bytes_of(image: Image.Image, ending: str, **options: Any) -> bytes:
    stream = BytesIO()
    image.save(stream, {"jpg": "JPEG"}.get(ending, ending.upper()), **options)
    return stream.getvalue()


def rotated(number: int) -> bytes:
    """A JPEG whose EXIF data say that it lies on its side, as many photographs of VizWiz."""
    image = plain(number)
    exif = image.getexif()
    exif[ORIENTATION] = ROTATED
    return bytes_of(image, "jpg", exif=exif)


def transparent_palette(number: int) -> bytes:
    return bytes_of(plain(number).quantize(8), "png", transparency=0)


def animated(number: int) -> bytes:
    frames = [plain(number + step).quantize(8) for step in range(2)]
    return bytes_of(frames[0], "gif", save_all=True, append_images=frames[1:])


def sixteen_bits(number: int) -> bytes:
    return bytes_of(Image.new("I;16", (40, 40), 257 * (number % 256)), "png")


KINDS: dict[str, tuple[str, Callable[[int], bytes]]] = {
    "jpeg": ("jpg", lambda number: bytes_of(plain(number), "jpg")),
    "grey_jpeg": ("jpg", lambda number: bytes_of(plain(number).convert("L"), "jpg")),
    "cmyk_jpeg": ("jpg", lambda number: bytes_of(plain(number).convert("CMYK"), "jpg")),
    "rotated_jpeg": ("jpg", rotated),
    "png": ("png", lambda number: bytes_of(plain(number), "png")),
    "alpha_png": ("png", lambda number: bytes_of(plain(number).convert("RGBA"), "png")),
    "grey_alpha_png": ("png", lambda number: bytes_of(plain(number).convert("LA"), "png")),
    "palette_png": ("png", transparent_palette),
    "one_bit_png": ("png", lambda number: bytes_of(plain(number).convert("1"), "png")),
    "sixteen_bit_png": ("png", sixteen_bits),
    "animated_gif": ("gif", animated),
    "one_pixel": ("png", lambda number: bytes_of(plain(number, (1, 1)), "png")),
    "wide": ("png", lambda number: bytes_of(plain(number, (150, 3)), "png")),
    "tall": ("jpg", lambda number: bytes_of(plain(number, (5, 140)), "jpg")),
}


def odd_picture(number: int) -> dict[str, Any]:
    """One image as parquet files of the library datasets store it; the kinds take turns."""
    names = list(KINDS)
    ending, encode = KINDS[names[number % len(names)]]
    return {"bytes": encode(number), "path": f"{number:012}.{ending}"}
