"""Image controls of videos: their frames in another order, or one of them. Drop no token."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import final

from mustdrop.evaluation.image_controls import ImageContext, ImageControl, Pictures


class FrameControl(ImageControl):
    """Shows the frames of each video in another order; images and times stay."""

    def shown(self, originals: Pictures, context: ImageContext) -> Pictures:
        if not context.videos:
            raise ValueError(
                f"image={self.name} changes the frames of a video, but this document has none"
            )
        shown = list(originals)
        for video in context.videos:
            frames = [originals[index] for index in video]
            shown[video.start : video.stop] = [frames[index] for index in self.order(frames)]
        return shown

    @abstractmethod
    def order(self, frames: Pictures) -> Sequence[int]:
        """Index of the frame to show at each place."""


@final
@dataclass(frozen=True)
class ShuffledFrames(FrameControl):
    """The frames in a random order: measures how much of an answer depends on their order.

    The order is drawn from the pixels, so that it is the same in every run.

    Source: control, ours.

    Attributes:
        name: Name of the control in folders and tables.
        seed: Seed of the draw.
    """

    name: str
    seed: int

    def order(self, frames: Pictures) -> Sequence[int]:
        pixels = b"".join(frame.tobytes() for frame in frames)
        indices = list(range(len(frames)))
        Random(b"%d " % self.seed + pixels).shuffle(indices)
        return indices


@final
@dataclass(frozen=True)
class ReversedFrames(FrameControl):
    """The last frame first: measures whether an answer follows the direction of time.

    Source: control, ours.

    Attributes:
        name: Name of the control in folders and tables.
    """

    name: str

    def order(self, frames: Pictures) -> Sequence[int]:
        return range(len(frames) - 1, -1, -1)


@final
@dataclass(frozen=True)
class RepeatedFrame(FrameControl):
    """The middle frame at every place: measures how much of an answer is in one picture.

    Source: control, ours.

    Attributes:
        name: Name of the control in folders and tables.
    """

    name: str

    def order(self, frames: Pictures) -> Sequence[int]:
        return [len(frames) // 2] * len(frames)
