"""Pixtral and Mistral 3 (arXiv:2410.07073): images of any size, a break token between rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, final

import torch

from mustdrop.models.base import ModelAdapter, ProcessorOutput, VisualInput
from mustdrop.models.encoders import EncoderPart, encoder_for
from mustdrop.models.encoders.pixtral import WHOLE, whole_images
from mustdrop.strategy import ModelFacts


@final
@dataclass(frozen=True, eq=False)
class PixtralAdapter(ModelAdapter):
    """Adapter of ``Mistral3ForConditionalGeneration``, and of ``Llava...`` with Pixtral's encoder.

    Every image has a grid of its own. The tokens between its rows are text.
    """

    @cached_property
    def encoders(self) -> Sequence[EncoderPart]:
        config = self.model.config
        unit = getattr(config, "spatial_merge_size", 1)  # Mistral 3 joins the patches of a cell
        kind = config.vision_config.model_type
        return [encoder_for(self.base.vision_tower, kind, unit=unit)]

    @cached_property
    def facts(self) -> ModelFacts:
        config, (encoder,) = self.model.config, self.encoders
        return ModelFacts(
            depth=config.text_config.num_hidden_layers,
            blocks=len(encoder.blocks),
            grid=None,
            has_cls=False,
            feature_block=len(encoder.blocks) - 1,
            unit=encoder.unit,
            whole_encoder=WHOLE,
        )

    @property
    def processor_fields(self) -> Mapping[str, Any]:
        size = self.model.config.vision_config.patch_size
        return {"patch_size": size, "spatial_merge_size": self.facts.unit}

    def visual_inputs(self, inputs: ProcessorOutput) -> Mapping[int, Sequence[VisualInput]]:
        config, pixels, sizes = (
            self.model.config, inputs.get("pixel_values"), inputs.get("image_sizes"),
        )  # fmt: skip
        images: list[VisualInput] = []
        if pixels is not None:
            if sizes is None or len(sizes) != len(pixels):
                given = "none" if sizes is None else len(sizes)
                raise ValueError(
                    f"image_sizes must have one row per image: {len(pixels)}, got {given}"
                )
            rows = torch.as_tensor(sizes).tolist()
            cell = config.vision_config.patch_size * self.facts.unit
            for image, (height, width) in zip(whole_images(pixels, rows), rows, strict=True):
                images.append(VisualInput.raster([image], (height // cell, width // cell)))
        return {config.image_token_id: images}
