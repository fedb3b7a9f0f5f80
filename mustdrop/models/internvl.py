"""InternVL3 and 3.5 (arXiv:2504.10479, 2508.18265) as transformers has them: tiles of one size."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, final

from mustdrop.models.base import ModelAdapter, ProcessorOutput, VisualInput
from mustdrop.models.encoders import EncoderPart, Part, encoder_for
from mustdrop.strategy import ModelFacts


@final
@dataclass(frozen=True, eq=False)
class InternVLAdapter(ModelAdapter):
    """Adapter of ``InternVLForConditionalGeneration``.

    An image is its tiles and, if there are several, a small copy of the whole as the last one. The
    model gets no more than a list of tiles, in which frames of videos stand, too: so every tile and
    every frame is an image of its own.
    """

    @cached_property
    def encoders(self) -> Sequence[EncoderPart]:
        kind = self.model.config.vision_config.model_type
        return [encoder_for(self.base.vision_tower, kind)]

    @property
    def feature_norm(self) -> Part:
        return self.encoders[0].module.layernorm

    @cached_property
    def facts(self) -> ModelFacts:
        config, (encoder,) = self.model.config, self.encoders
        vision = config.vision_config
        for name, only in (
            ("vision_feature_layer", -1),
            ("vision_feature_select_strategy", "default"),
            ("downsample_ratio", 1 / encoder.unit),
        ):
            if getattr(config, name) != only:
                raise ValueError(f"{name} must be {only!r}, got {getattr(config, name)!r}")
        sides = zip(vision.image_size, vision.patch_size, strict=True)
        rows, columns = (size // patch // encoder.unit for size, patch in sides)
        return ModelFacts(
            depth=config.text_config.num_hidden_layers,
            blocks=vision.num_hidden_layers,
            grid=(rows, columns),
            has_cls=encoder.has_cls,
            feature_block=vision.num_hidden_layers - 1,
            unit=encoder.unit,
        )

    @property
    def processor_fields(self) -> Mapping[str, Any]:
        rows, columns = self.facts.grid or (0, 0)
        return {"image_seq_length": rows * columns}

    def visual_inputs(self, inputs: ProcessorOutput) -> Mapping[int, Sequence[VisualInput]]:
        pixels, grid = inputs.get("pixel_values"), self.facts.grid
        assert grid is not None
        tiles = () if pixels is None else pixels
        shown = [VisualInput.raster([tile], grid) for tile in tiles]
        return {self.model.config.image_token_id: shown}
