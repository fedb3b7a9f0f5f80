"""LLaVA-OneVision and LLaVA-Video (arXiv:2408.03326, 2410.02713): large inputs are pooled."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, final

import torch
from einops import rearrange
from torch import Tensor
from transformers.models.llava_onevision.modeling_llava_onevision import (
    get_anyres_image_grid_shape,
    unpad_image,
)

from mustdrop.ledger import OFF_GRID
from mustdrop.models.base import ProcessorOutput, VisualInput
from mustdrop.models.llava import LlavaAdapter
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
        config, pixels = self.model.config, inputs.get("pixel_values")
        sizes, counts = inputs.get("image_sizes"), inputs.get("batch_num_images")
        if pixels is not None and (sizes is None or len(sizes) != len(pixels)):
            given = "none" if sizes is None else len(sizes)
            raise ValueError(f"image_sizes must have one row per image: {len(pixels)}, got {given}")
        images, rows = (), []
        if pixels is not None:
            images, rows = pixels, torch.as_tensor(sizes).tolist()
        alone = [True] * len(rows)
        if counts is not None:
            alone = [count == 1 for count in torch.as_tensor(counts).tolist() for _ in range(count)]
        shown = [self._image(*part) for part in zip(images, rows, alone, strict=True)]
        videos = inputs.get("pixel_values_videos")
        frames = [self._video(list(video)) for video in (() if videos is None else videos)]
        return {config.image_token_id: shown, config.video_token_id: frames}

    def _image(self, encoded: Tensor, size: Sequence[int], is_alone: bool) -> VisualInput:
        config, (rows, columns) = self.model.config, self.encoder_grid
        shape = (0, 0)
        if is_alone:
            shape = get_anyres_image_grid_shape(
                size, config.image_grid_pinpoints, config.vision_config.image_size
            )
        crops = shape[0] * shape[1]
        # the model's own packing tells how many slots there are, and where its newlines stand
        packed, _ = self.base.pack_image_features(
            [torch.zeros(1 + crops, rows * columns, 1)], [size], image_newline=torch.ones(1),
            vision_aspect_ratio=config.vision_aspect_ratio,
        )  # fmt: skip
        newline = packed[0][:, 0] == 1
        cells = torch.where(newline, OFF_GRID, (~newline).cumsum(0) - 1)
        grids, shown, tiles = [(rows, columns)], [encoded[0]], [1]
        if crops:
            lines = int(newline.sum())
            grids.append((lines, (len(newline) - rows * columns) // lines - 1))
            stitched = rearrange(encoded[1 : 1 + crops], "(r n) c h w -> c (r h) (n w)", r=shape[0])
            for axis, patches in enumerate((shape[0] * rows, shape[1] * columns), 1):
                left = unpad_image(torch.zeros(1, shape[0] * rows, shape[1] * columns), size)
                cut = (patches - left.shape[axis]) // 2 * stitched.shape[axis] // patches
                stitched = stitched.narrow(axis, cut, stitched.shape[axis] - 2 * cut)
            shown.append(stitched)
            tiles.append(crops)
        return VisualInput(grids, cells, shown, tiles=tiles)

    def _video(self, frames: Sequence[Tensor]) -> VisualInput:
        rows, columns = (math.ceil(side / 2) for side in self.encoder_grid)
        video = VisualInput.raster(frames, (rows, columns), is_video=True)
        return replace(video, cells=torch.cat([video.cells, torch.tensor([OFF_GRID])]))
