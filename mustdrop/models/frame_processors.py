"""Video processors that resize frames with PIL, as images are. They decode no file.

Those of transformers need torchvision, which resizes with other numbers. These take the settings of
the same files and return the same inputs, so that a model gets the same pixels on every machine.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, final

import numpy as np
import torch
from einops import rearrange
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor
from transformers import (
    BatchFeature,
    CLIPImageProcessorPil,
    GotOcr2ImageProcessorPil,
    Qwen2VLImageProcessorPil,
    SiglipImageProcessorPil,
    SmolVLMImageProcessorPil,
)
from transformers.models.qwen3_vl.video_processing_qwen3_vl import smart_resize
from transformers.utils.hub import PushToHubMixin
from transformers.video_utils import VideoMetadata

Frame = UInt8[np.ndarray, "_ _ 3"]  # height, width, colours
Frames = UInt8[np.ndarray, "_ _ _ 3"]  # frames, height, width, colours
VIDEO = "video_processor"
# Files with the settings of videos, the first one that is there; older checkpoints have the last.
FILES = ("video_preprocessor_config.json", "preprocessor_config.json")


class FrameProcessor(PushToHubMixin, ABC):
    """Makes a model's inputs of the chosen frames of videos.

    Args:
        settings: Settings of videos as in a checkpoint's files.

    Attributes:
        images: Image processor that resizes and normalises each frame.
        frames: Number of frames that the model sees of a video; None: no video can be shown.
    """

    kind: ClassVar[Any]
    usual: ClassVar[dict[str, Any]] = {}  # settings that the files may leave out
    model_input_names: ClassVar[list[str]] = ["pixel_values_videos"]

    def __init__(self, settings: dict[str, Any]) -> None:
        known = {name: value for name, value in settings.items() if not name.endswith("_type")}
        self.images = self.kind.from_dict({**self.usual, **known})
        self.frames: int | None = None

    def __call__(
        self,
        videos: Sequence[Frames],
        video_metadata: Sequence[dict[str, Any]] | None = None,
        return_metadata: bool = False,
        **options: Any,
    ) -> BatchFeature:
        """Inputs of a batch of videos, as tensors.

        Args:
            videos: Frames of each video.
            video_metadata: Rate and times of each video, for processors that write them into the
                prompt or into positions.
            return_metadata: Whether the result holds the metadata, too.
            options: Other options of transformers' video processors; those would sample frames.
        """
        inputs = self.encoded(videos)
        if return_metadata:
            plain: Sequence[dict[str, Any]] = [
                {"total_num_frames": len(video), "frames_indices": [*range(len(video))]}
                for video in videos
            ]
            given = plain if video_metadata is None else video_metadata
            inputs["video_metadata"] = [VideoMetadata(**dict(entry)) for entry in given]
        return BatchFeature(inputs)

    @abstractmethod
    def encoded(self, videos: Sequence[Frames]) -> dict[str, Any]:
        """Pixels of each video, as the model takes them."""

    def to_dict(self) -> dict[str, Any]:
        return self.images.to_dict()


class SquareFrames(FrameProcessor):
    """Frames as squares of one size."""

    options: ClassVar[dict[str, Any]] = {}  # of the image processor, which the files do not change

    def encoded(self, videos: Sequence[Frames]) -> dict[str, Any]:
        pixels = [
            self.images(images=list(frames), return_tensors="pt", **self.options)["pixel_values"]
            for frames in videos
        ]
        return {"pixel_values_videos": torch.stack(pixels)}


@final
class ClipFrames(SquareFrames):
    """Frames whose centre is cut out, in place of ``VideoLlavaVideoProcessor``."""

    kind = CLIPImageProcessorPil


@final
class PlainFrames(SquareFrames):
    """Frames whose aspect ratio changes, in place of ``LlavaOnevisionVideoProcessor``."""

    kind = SiglipImageProcessorPil
    options: ClassVar[dict[str, Any]] = {"do_pad": False}


@final
class TileFrames(SquareFrames):
    """Frames of one tile each, in place of ``InternVLVideoProcessor``."""

    kind = GotOcr2ImageProcessorPil
    options: ClassVar[dict[str, Any]] = {"crop_to_patches": False}


class QwenFrames(FrameProcessor):
    """Frames of any size as patches, two frames in each, in place of ``Qwen2VLVideoProcessor``."""

    kind = Qwen2VLImageProcessorPil
    usual: ClassVar[dict[str, Any]] = {
        "size": {"shortest_edge": 128 * 28 * 28, "longest_edge": 768 * 28 * 28}
    }
    model_input_names: ClassVar[list[str]] = ["pixel_values_videos", "video_grid_thw"]

    @property
    def merge_size(self) -> int:
        """Number of patches along each side of a cell."""
        return self.images.merge_size

    @property
    def temporal_patch_size(self) -> int:
        """Number of frames in a patch."""
        return self.images.temporal_patch_size

    def encoded(self, videos: Sequence[Frames]) -> dict[str, Any]:
        made = [self._patches(frames) for frames in videos]
        return {
            "pixel_values_videos": torch.cat([patches for patches, _ in made]),
            "video_grid_thw": torch.tensor([grid for _, grid in made]),
        }

    def _patches(self, frames: Frames) -> tuple[Tensor, list[int]]:
        """Patches of a video, and their number along time, rows and columns."""
        depth = self.temporal_patch_size
        missing = -len(frames) % depth
        padded = [*frames, *[frames[-1]] * missing]  # the last frame stands for missing ones
        made = self._of_images(padded, len(frames))
        grid = made["image_grid_thw"][0].tolist()
        # an image fills each of its patches along time with copies of itself
        patches = rearrange(
            made["pixel_values"], "(f n) (c t p) -> t f n c p", f=len(padded), c=3, t=depth
        )[0]
        patches = rearrange(patches, "(g t) n c p -> (g n) (c t p)", t=depth)
        return patches, [len(padded) // depth, *grid[1:]]

    def _of_images(self, frames: Sequence[Frame], count: int) -> BatchFeature:
        """Patches of each frame as if it were an image; ``count`` of them are the video's own."""
        return self.images(images=frames, return_tensors="pt")


@final
class Qwen3Frames(QwenFrames):
    """Frames as patches, in place of ``Qwen3VLVideoProcessor``.

    The settings limit the pixels of all frames of a video together. The limits of ``images`` hold
    for each frame in addition; at first there are none.
    """

    def __init__(self, settings: dict[str, Any]) -> None:
        super().__init__(settings)
        self.limits = dict(self.images.size)
        self.images.size = {**self.limits, "shortest_edge": 1}

    def _of_images(self, frames: Sequence[Frame], count: int) -> BatchFeature:
        height, width = frames[0].shape[:2]
        limits, of_frame = self.limits, dict(self.images.size)
        rows, columns = smart_resize(
            num_frames=count, height=height, width=width, temporal_factor=self.temporal_patch_size,
            factor=self.images.patch_size * self.merge_size,
            min_pixels=max(limits["shortest_edge"], count * of_frame["shortest_edge"]),
            max_pixels=min(limits["longest_edge"], count * of_frame["longest_edge"]),
        )  # fmt: skip
        resized = [
            Image.fromarray(frame).resize((columns, rows), Image.Resampling(self.images.resample))
            for frame in frames
        ]
        return self.images(images=resized, do_resize=False, return_tensors="pt")


@final
class IdeficsFrames(FrameProcessor):
    """Frames of one tile each with their times, in place of ``SmolVLMVideoProcessor``."""

    kind = SmolVLMImageProcessorPil
    model_input_names: ClassVar[list[str]] = ["pixel_values", "pixel_attention_mask"]
    num_frames: ClassVar[None] = None  # its processor passes these to a sampling of frames
    fps: ClassVar[None] = None

    def __init__(self, settings: dict[str, Any]) -> None:
        sampling = settings.get("video_sampling")
        sizes = {} if sampling is None else {"size": sampling["video_size"]}
        super().__init__({**settings, **sizes})

    def encoded(self, videos: Sequence[Frames]) -> dict[str, Any]:
        images = [list(frames) for frames in videos]
        return dict(self.images(images=images, do_image_splitting=False, return_tensors="pt"))


# Name of a processor's class -> its video processor.
FRAME_PROCESSORS = {
    "InternVLProcessor": TileFrames,
    "LlavaOnevisionProcessor": PlainFrames,
    "Qwen2VLProcessor": QwenFrames,
    "Qwen2_5_VLProcessor": QwenFrames,
    "Qwen3VLProcessor": Qwen3Frames,
    "SmolVLMProcessor": IdeficsFrames,
    "VideoLlavaProcessor": ClipFrames,
}


def video_settings(folder: Path) -> dict[str, Any]:
    """Settings of videos in a checkpoint's files, in the order in which transformers reads them.

    Raises:
        OSError: If there is no such file.
    """
    nested = folder / "processor_config.json"
    if nested.is_file():
        settings = json.loads(nested.read_text(encoding="utf-8"))
        if VIDEO in settings:
            return settings[VIDEO]
    for name in FILES:
        if (folder / name).is_file():
            return json.loads((folder / name).read_text(encoding="utf-8"))
    raise OSError(f"{folder} has no {' or '.join(FILES)}")


def accepting(kind: Any) -> Any:
    """A subclass of a processor's class that accepts a :class:`FrameProcessor`."""

    def check(self: Any, name: str, part: Any) -> Any:
        if name == VIDEO:
            return FrameProcessor
        return kind.check_argument_for_proper_class(self, name, part)

    body = {"check_argument_for_proper_class": check, "__module__": kind.__module__}
    return type(kind.__name__, (kind,), body)
