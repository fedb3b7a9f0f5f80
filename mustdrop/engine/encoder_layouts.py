"""Which layout fits an encoder."""

from collections.abc import Sequence

from mustdrop.engine.encoder_layout import EncoderLayout, PaddedLayout
from mustdrop.engine.gathered_layout import RasterLayout
from mustdrop.engine.image import EncodedImage
from mustdrop.engine.packed_layout import PackedLayout
from mustdrop.models import EncoderPart


def first_layout(part: EncoderPart, images: Sequence[EncodedImage]) -> EncoderLayout:
    """Layout of images in front of the first block of an encoder."""
    kind = PackedLayout if part.packed else RasterLayout if part.gathered else PaddedLayout
    return kind(part, images, [image.cells for image in images])
