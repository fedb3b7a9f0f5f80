"""LLaVA-OneVision and LLaVA-Video (arXiv:2408.03326, 2410.02713): large inputs are pooled."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, final

import torch
from torch import Tensor
from transformers.models.llava_onevision.modeling_llava_onevision import (
    get_anyres_image_grid_shape,
)

from mustdrop.ledger import OFF_GRID
from mustdrop.models.base import ProcessorOutput, VisualInput, sized_images
from mustdrop.models.llava import LlavaAdapter
from mustdrop.models.stitched import stitched
from mustdrop.strategy import ModelFacts

POOLED = (
    "the model interpolates the features of large images and of videos behind the projector, so a "
    "vision token does not show a fixed set of patches"
)


@final
@dataclass(frozen=True, eq=False)
class LlavaOnevisionAdapter(LlavaAdapter):
    """Adapter of ``LlavaOnevisionForConditionalGeneration``.

    The only image of a prompt is its small copy and one grid of all its crops. An image next to
    others is not cropped. A video is pooled to a quarter of its patches.
    """

    @property
    def image_tokens(self) -> int | None:
        return None

    @property
    def encoder_grid(self) -> tuple[int, int]:
        vision = self.model.config.vision_config
        side = vision.image_size // vision.patch_size
        return side, side

    @property
    def processor_fields(self) -> Mapping[str, Any]:
        rows, columns = self.encoder_grid
        strategy = self.model.config.vision_feature_select_strategy
        return {"num_image_tokens": rows * columns, "vision_feature_select_strategy": strategy}

    @cached_property
    def facts(self) -> ModelFacts:
        return replace(super().facts, grid=None, whole_encoder=POOLED)

    def visual_inputs(self, inputs: ProcessorOutput) -> Mapping[int, Sequence[VisualInput]]:
        config, images = self.model.config, sized_images(inputs)
        counts = torch.as_tensor(inputs.get("batch_num_images", [1] * len(images))).tolist()
        alone = [count == 1 for count in counts for _ in range(count)]
        shown = [self._image(*part, only) for part, only in zip(images, alone, strict=True)]
        videos = inputs.get("pixel_values_videos")
        frames = [self._video(list(video)) for video in (() if videos is None else videos)]
        return {config.image_token_id: shown, config.video_token_id: frames}

    def _image(self, encoded: Tensor, size: Sequence[int], is_alone: bool) -> VisualInput:
        config, shape = self.model.config, (0, 0)
        if is_alone:
            shape = get_anyres_image_grid_shape(
                size, config.image_grid_pinpoints, config.vision_config.image_size
            )
        ratio = config.vision_aspect_ratio
        packing = partial(self.base.pack_image_features, vision_aspect_ratio=ratio)
        return stitched(encoded, size, shape, self.encoder_grid, packing)

    def _video(self, frames: Sequence[Tensor]) -> VisualInput:
        rows, columns = (math.ceil(side / 2) for side in self.encoder_grid)
        video = VisualInput.raster(frames, (rows, columns), is_video=True)
        return replace(video, cells=torch.cat([video.cells, torch.tensor([OFF_GRID])]))
