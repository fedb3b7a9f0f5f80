"""Qwen2-VL and Qwen2.5-VL (arXiv:2409.12191, 2502.13923): images of any size, cells of 2 x 2."""

import inspect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from mustdrop.models.base import ModelAdapter, ProcessorOutput, VisualInput
from mustdrop.models.encoders import EncoderPart, Part, encoder_for
from mustdrop.models.encoders.qwen import frames
from mustdrop.strategy import ModelFacts


@dataclass(frozen=True, eq=False)
class QwenVLAdapter(ModelAdapter):
    """Adapter of ``Qwen2VLForConditionalGeneration`` and ``Qwen2_5_VLForConditionalGeneration``.

    Every image has a grid of its own. A frame of a video is an encoded image; two frames in time
    make one. Rotary positions are coordinates: time, row, column.
    """

    @cached_property
    def encoders(self) -> Sequence[EncoderPart]:
        return [encoder_for(self.base.visual, self.base.visual.config.model_type)]

    @property
    def projector(self) -> Part:
        return self.base.visual.merger

    @cached_property
    def facts(self) -> ModelFacts:
        text, (encoder,) = self.model.config.text_config, self.encoders
        return ModelFacts(
            depth=text.num_hidden_layers,
            blocks=len(encoder.blocks),
            grid=None,
            has_cls=False,
            feature_block=len(encoder.blocks) - 1,
            unit=encoder.unit,
            coordinates=True,
        )

    def visual_inputs(self, inputs: ProcessorOutput) -> Mapping[int, Sequence[VisualInput]]:
        config = self.model.config
        images = self._split(inputs, "pixel_values", "image_grid_thw")
        videos = self._split(inputs, "pixel_values_videos", "video_grid_thw", is_video=True)
        # transformers from 5.3 on falls back to one-dimensional positions without these
        name = "mm_token_type_ids"
        needed = name in inspect.signature(type(self.base).forward).parameters
        if (images or videos) and needed and inputs.get(name) is None:
            raise ValueError(
                f"{name} must be given with images: without it the model falls back to positions "
                "that are no coordinates; pass all that the processor returns"
            )
        return {config.image_token_id: images, config.video_token_id: videos}

    def _split(
        self, inputs: ProcessorOutput, pixels: str, grid: str, is_video: bool = False
    ) -> list[VisualInput]:
        patches, sizes = inputs.get(pixels), inputs.get(grid)
        if patches is None:
            return []
        grids = [] if sizes is None else sizes.tolist()
        described = sum(math.prod(size) for size in grids)
        if described != len(patches):
            given = "none" if sizes is None else f"grids of {described} patches"
            raise ValueError(
                f"{grid} must describe the {len(patches)} rows of {pixels}, got {given}"
            )
        unit = self.facts.unit
        return [
            VisualInput.raster(images, (rows // unit, columns // unit), is_video=is_video)
            for images, (_, rows, columns) in zip(frames(patches, grids), grids, strict=True)
        ]
