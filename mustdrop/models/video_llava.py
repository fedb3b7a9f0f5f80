"""Video-LLaVA (arXiv:2311.10122): one encoder for images, one for frames, one projector."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, final

from mustdrop.models.base import ProcessorOutput, VisualInput
from mustdrop.models.encoders import EncoderPart, encoder_for
from mustdrop.models.llava import LlavaAdapter

# Names of the pixels of images, the processor's first; which one the model takes depends on the
# version of transformers.
IMAGES = ("pixel_values_images", "pixel_values")
VIDEOS = "pixel_values_videos"


@final
@dataclass(frozen=True, eq=False)
class VideoLlavaAdapter(LlavaAdapter):
    """Adapter of ``VideoLlavaForConditionalGeneration``.

    The model encodes all images of a batch, then all videos, whatever the order in the prompts. A
    video is its frames one after the other, each behind its [CLS]: 8 frames have 2056 slots.
    """

    @cached_property
    def encoders(self) -> Sequence[EncoderPart]:
        kind = self.model.config.vision_config.model_type
        return [
            encoder_for(tower, kind) for tower in (self.base.image_tower, self.base.video_tower)
        ]

    def keeps_cls(self, encoder: EncoderPart) -> bool:
        # the setting that removes [CLS] concerns images; the model keeps that of every frame
        return encoder is self.encoders[1] or super().keeps_cls(encoder)

    def visual_inputs(self, inputs: ProcessorOutput) -> Mapping[int, Sequence[VisualInput]]:
        config, grid, (of_images, of_videos) = self.model.config, self.facts.grid, self.encoders
        assert grid is not None
        images = [
            VisualInput.raster([image], grid, self.keeps_cls(of_images))
            for image in _pixels(inputs, *IMAGES)
        ]
        videos = [
            VisualInput.raster(list(frames), grid, self.keeps_cls(of_videos), is_video=True)
            for frames in _pixels(inputs, VIDEOS)
        ]
        return {config.image_token_id: images, config.video_token_id: videos}


def _pixels(inputs: ProcessorOutput, *names: str) -> Any:
    """The first of these inputs that is given; empty without any."""
    given = (inputs[name] for name in names if inputs.get(name) is not None)
    return next(given, ())
