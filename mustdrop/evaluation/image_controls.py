"""Image controls: replace the images of a document before the model sees them. Drop no token.

A video counts as its frames; :mod:`mustdrop.evaluation.frame_controls` changes their order.

They measure how much an answer depends on the image, and how well a smaller image would do.
Annotations of an image (the patches that a question is about) do not hold for its replacement.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from math import sqrt
from typing import Any, final

from PIL import Image

from mustdrop.dropper import TokenDropper
from mustdrop.evaluation.chat import pictures, replaced, video_ranges
from mustdrop.evaluation.lmms_eval_api import ChatMessages
from mustdrop.models.image_scale import image_scale

Pictures = Sequence[Image.Image]


@dataclass(frozen=True, eq=False)
class ImageContext:
    """What a control may use in addition to the images of a document.

    Attributes:
        scale: Returns the factor by which preprocessing scales the sides of an image of the given
            width and height, at most 1.
        others: Returns an iterator over the images of all other documents of the task, from the
            next one to the last, then from the first one.
        videos: Indices of the frames of each video among the images of the document.
    """

    scale: Callable[[tuple[int, int]], float]
    others: Callable[[], Iterator[Pictures]]
    videos: Sequence[range] = ()


class ImageControl(ABC):
    """Replaces the images of a document.

    Attributes:
        name: Name of the control in folders and tables.
    """

    name: str

    def check(self, documents: Iterable[Sequence[Pictures]]) -> None:  # noqa: B027  (most accept all documents)
        """Raise ValueError if the images of documents cannot be replaced; called before a run.

        Args:
            documents: Images of each image (one) and each video (its frames) of each document.
        """

    @abstractmethod
    def shown(self, originals: Pictures, context: ImageContext) -> Pictures:
        """Images to show instead of the originals: as many as these, or none."""


@final
@dataclass(frozen=True)
class ResizedImage(ImageControl):
    """The image shrunk and enlarged again: as many patches, but the information of fewer pixels.

    Each side is shrunk to sqrt(ratio) of its length after preprocessing (of its own length, if
    that is smaller) with the Lanczos filter, and enlarged to its own length with the bicubic one.
    So the small image has at most this share of the pixels that the model sees.

    Source: control, ours.

    Attributes:
        name: Name of the control in folders and tables.
        ratio: Share of the pixels that remain, in (0, 1].
    """

    name: str
    ratio: float

    def __post_init__(self) -> None:
        if not 0 < self.ratio <= 1:
            raise ValueError(f"ratio must be a share of pixels in (0, 1], got {self.ratio}")

    def shown(self, originals: Pictures, context: ImageContext) -> Pictures:
        return [self._resized(picture, context.scale(picture.size)) for picture in originals]

    def _resized(self, picture: Image.Image, seen: float) -> Image.Image:
        scale = sqrt(self.ratio) * seen
        # Rounded down: the small image must not hold more pixels than the budget's share.
        width, height = (max(1, int(scale * length)) for length in picture.size)
        small = picture.convert("RGB").resize((width, height), Image.Resampling.LANCZOS)
        return small.resize(picture.size, Image.Resampling.BICUBIC)


@final
@dataclass(frozen=True)
class BlankImage(ImageControl):
    """One colour, the same for every image: vision tokens hold no information, not even a mean.

    Source: control, ours.

    Attributes:
        name: Name of the control in folders and tables.
        colour: Values of red, green and blue, 0 to 255.
    """

    name: str
    colour: Sequence[int]

    def __post_init__(self) -> None:
        colour = tuple(self.colour)
        if len(colour) != 3 or not all(0 <= part <= 255 for part in colour):
            raise ValueError(f"colour must be three numbers from 0 to 255, got {list(colour)}")
        object.__setattr__(self, "colour", colour)

    def shown(self, originals: Pictures, context: ImageContext) -> Pictures:
        red, green, blue = self.colour
        return [Image.new("RGB", picture.size, (red, green, blue)) for picture in originals]


@final
@dataclass(frozen=True)
class NoImage(ImageControl):
    """The conversation without its images: measures what the text alone gives.

    Source: control, ours.

    Attributes:
        name: Name of the control in folders and tables.
    """

    name: str

    def shown(self, originals: Pictures, context: ImageContext) -> Pictures:
        return []


@final
@dataclass(frozen=True)
class WrongImage(ImageControl):
    """The images of the next document with different images: measures the score of a guess.

    A video is replaced frame by frame, by that of another document.

    Benchmarks ask several questions about one image or video, so documents with the same one are
    skipped. Videos with some equal frames, such as a black one at the start, are different; a video
    whose frames are all frames of another is the same. If the other document has fewer images, its
    images are repeated. The other image is resized to the size of the document's own, because the
    size decides the number of vision tokens in models that keep it.

    Source: control, ours.

    Attributes:
        name: Name of the control in folders and tables.
    """

    name: str

    def check(self, documents: Iterable[Sequence[Pictures]]) -> None:
        first: list[set[bytes]] = []
        for inputs in documents:
            contents = [_contents(shown) for shown in inputs]
            if first and contents and not _same(first, set().union(*contents)):
                return
            first = first or contents
        raise ValueError(
            f"image={self.name} needs two documents with different images, but all documents of "
            "this task have the same images, or none"
        )

    def shown(self, originals: Pictures, context: ImageContext) -> Pictures:
        if not originals:
            return []
        frames = {index for video in context.videos for index in video}
        stills = [range(index, index + 1) for index in range(len(originals)) if index not in frames]
        inputs = [
            _contents([originals[index] for index in part]) for part in [*stills, *context.videos]
        ]
        for other in context.others():
            if other and not _same(inputs, _contents(other)):
                return [
                    _with_size(other[index % len(other)], original.size)
                    for index, original in enumerate(originals)
                ]
        raise ValueError(
            f"image={self.name} needs a document with different images, but every other document "
            "has an image or a video of this document"
        )


def showing(
    chat: ChatMessages,
    image: ImageControl,
    processor: Any,
    others: Callable[[], Iterator[Pictures]],
) -> ChatMessages:
    """The conversation with its images replaced by a control.

    Args:
        chat: Conversation of a document.
        image: Control that replaces the images.
        processor: Processor of the model.
        others: See :class:`ImageContext`.
    """
    scale = partial(image_scale, processor.image_processor)
    context = ImageContext(scale, others, video_ranges(chat))
    return replaced(chat, image.shown(pictures(chat), context))


def require_original_image(dropper: TokenDropper, image: ImageControl | None) -> None:
    """Check that a dropper that needs annotations sees the images that are annotated.

    Raises:
        ValueError: If the dropper needs annotations of the images, but the images are replaced.
    """
    if image is not None and dropper.vision is not None and dropper.vision.annotations:
        needs = ", ".join(dropper.vision.annotations)
        raise ValueError(
            f"{type(dropper.vision).__name__} needs {needs} of every image, which are known only "
            f"for a document's own images: image must be own, got {image.name}"
        )


def _with_size(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """The image, resized with the bicubic filter if it has another size."""
    if picture.size == size:
        return picture
    return picture.convert("RGB").resize(size, Image.Resampling.BICUBIC)


def _same(inputs: Sequence[set[bytes]], other: set[bytes]) -> bool:
    """Whether another document has one of these images or videos, or nothing else."""
    return any(part <= other for part in inputs) or other <= set().union(*inputs)


def _contents(images: Pictures) -> set[bytes]:
    return {_content(picture) for picture in images}


def _content(picture: Image.Image) -> bytes:
    """Size and pixels of an image, to compare images."""
    return repr(picture.size).encode() + picture.convert("RGB").tobytes()
