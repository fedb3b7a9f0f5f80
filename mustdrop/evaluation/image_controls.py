"""Controls on the input: what a document shows instead of its own pictures. Drops no token.

They say what an answer owes to the picture, and what a smaller picture would have done. Whatever is
known of a picture (the patches asked about) is not known of what stands in its place.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any, final

from PIL import Image

from mustdrop.dropper import TokenDropper
from mustdrop.evaluation.chat import pictures, replaced, shorter_side
from mustdrop.evaluation.lmms_eval_api import ChatMessages

Pictures = Sequence[Image.Image]


@dataclass(frozen=True, eq=False)
class ImageContext:
    """What a control may know beside a document's own pictures.

    Attributes:
        side: Pixels of a picture's shorter side as the model sees it.
        others: The pictures of the task's other documents, from the next one on, round to the one
            before.
    """

    side: int
    others: Callable[[], Iterator[Pictures]]


class ImageControl(ABC):
    """Puts other pictures in the place of a document's own.

    Attributes:
        name: What folders and tables call it.
    """

    name: str

    def check(self, documents: Iterable[Pictures]) -> None:  # noqa: B027  (most need no others)
        """Raise ValueError if these documents cannot be shown so; called before work starts."""

    @abstractmethod
    def shown(self, own: Pictures, beside: ImageContext) -> Pictures:
        """As many pictures as there were, or none at all."""


@final
@dataclass(frozen=True)
class ResizedImage(ImageControl):
    """The picture at fewer pixels, enlarged back: as many patches, no more to see than in fewer.

    Each side is shrunk to sqrt(ratio) of what the model sees of it (of itself, where it is smaller
    than that), by Lanczos' filter, and enlarged to its size again, bicubic.

    Source: control, ours.

    Attributes:
        name: What folders and tables call it.
        ratio: Share of the pixels that is left, in (0, 1].
    """

    name: str
    ratio: float

    def __post_init__(self) -> None:
        if not 0 < self.ratio <= 1:
            raise ValueError(f"ratio must be a share of pixels in (0, 1], got {self.ratio}")

    def shown(self, own: Pictures, beside: ImageContext) -> Pictures:
        return [self._resized(picture, beside.side) for picture in own]

    def _resized(self, picture: Image.Image, side: int) -> Image.Image:
        scale = sqrt(self.ratio) * min(1.0, side / min(picture.size))
        # rounded down: the budget's share is the most that it may carry
        width, height = (max(1, int(scale * length)) for length in picture.size)
        small = picture.convert("RGB").resize((width, height), Image.Resampling.LANCZOS)
        return small.resize(picture.size, Image.Resampling.BICUBIC)


@final
@dataclass(frozen=True)
class BlankImage(ImageControl):
    """One colour, the same for every picture: vision tokens that tell nothing, not even a mean.

    Source: control, ours.

    Attributes:
        name: What folders and tables call it.
        colour: Red, green and blue, 0 to 255.
    """

    name: str
    colour: Sequence[int]

    def __post_init__(self) -> None:
        colour = tuple(self.colour)
        if len(colour) != 3 or not all(0 <= part <= 255 for part in colour):
            raise ValueError(f"colour must be three numbers from 0 to 255, got {list(colour)}")
        object.__setattr__(self, "colour", colour)

    def shown(self, own: Pictures, beside: ImageContext) -> Pictures:
        red, green, blue = self.colour
        return [Image.new("RGB", picture.size, (red, green, blue)) for picture in own]


@final
@dataclass(frozen=True)
class NoImage(ImageControl):
    """The conversation without its pictures: what words alone are worth.

    Source: control, ours.

    Attributes:
        name: What folders and tables call it.
    """

    name: str

    def shown(self, own: Pictures, beside: ImageContext) -> Pictures:
        return []


@final
@dataclass(frozen=True)
class WrongImage(ImageControl):
    """The pictures of the next document that shows others: what a guess is worth.

    Benchmarks ask several questions of one picture, so the next document may show the same one;
    it is passed over. Where there are more pictures than that document has, they come again.

    Source: control, ours.

    Attributes:
        name: What folders and tables call it.
    """

    name: str

    def check(self, documents: Iterable[Pictures]) -> None:
        first: set[bytes] = set()
        for shown in documents:
            seen = {_content(picture) for picture in shown}
            if first and seen and not first & seen:
                return
            first = first or seen
        raise ValueError(
            f"image={self.name} needs two documents with different pictures; all documents of this "
            "task show the same, or none"
        )

    def shown(self, own: Pictures, beside: ImageContext) -> Pictures:
        if not own:
            return []
        mine = {_content(picture) for picture in own}
        for other in beside.others():
            if other and not mine & {_content(picture) for picture in other}:
                return [other[place % len(other)] for place in range(len(own))]
        raise ValueError(
            f"image={self.name}: every other document shows one of this one's own pictures"
        )


def showing(
    chat: ChatMessages,
    image: ImageControl,
    processor: Any,
    others: Callable[[], Iterator[Pictures]],
) -> ChatMessages:
    """A document's conversation under a control; ``others`` as in :class:`Beside`."""
    return replaced(
        chat, image.shown(pictures(chat), ImageContext(shorter_side(processor), others))
    )


def require_own_image(dropper: TokenDropper, image: ImageControl | None) -> None:
    """Check that nothing is told of pictures that are not shown.

    Raises:
        ValueError: If the dropper has to be told of the picture, and it is another one.
    """
    if image is not None and dropper.vision is not None and dropper.vision.annotations:
        needs = ", ".join(dropper.vision.annotations)
        raise ValueError(
            f"{type(dropper.vision).__name__} has to be told {needs} of every picture, which are "
            f"those of the document's own: with it image must be own, got {image.name}"
        )


def _content(picture: Image.Image) -> bytes:
    """What tells two pictures apart."""
    return repr(picture.size).encode() + picture.convert("RGB").tobytes()
