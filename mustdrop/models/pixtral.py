"""Pixtral and Mistral 3 (arXiv:2410.07073): images of any size, a break token between rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, final

from mustdrop.models.base import ModelAdapter, ProcessorOutput, VisualInput, sized_images
from mustdrop.models.encoders import EncoderPart, encoder_for
from mustdrop.models.encoders.pixtral import WHOLE
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
        config, images = self.model.config, sized_images(inputs)
        cell = config.vision_config.patch_size * self.facts.unit
        shown = [
            VisualInput.raster([image[:, :height, :width]], (height // cell, width // cell))
            for image, (height, width) in images  # without the padding of the batch
        ]
        return {config.image_token_id: shown}
