"""LLaVA-1.5 (arXiv:2310.03744): CLIP or SigLIP, a two-layer projector, a text decoder."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from mustdrop.models.base import ModelAdapter, ProcessorOutput, VisualInput
from mustdrop.models.encoders import EncoderPart, encoder_for
from mustdrop.strategy import ModelFacts


@dataclass(frozen=True, eq=False)
class LlavaAdapter(ModelAdapter):
    """Adapter of ``LlavaForConditionalGeneration``: an image is its patches in raster order."""

    @cached_property
    def encoders(self) -> Sequence[EncoderPart]:
        kind = self.model.config.vision_config.model_type
        return [encoder_for(self.base.vision_tower, kind)]

    @property
    def image_tokens(self) -> int | None:
        rows, columns = self.facts.grid or (0, 0)
        return rows * columns + self.keeps_cls(self.encoders[0])

    @property
    def processor_fields(self) -> Mapping[str, Any]:
        config = self.model.config
        return {
            "patch_size": config.vision_config.patch_size,
            "vision_feature_select_strategy": config.vision_feature_select_strategy,
            "num_additional_image_tokens": int(self.facts.has_cls),
        }

    def keeps_cls(self, encoder: EncoderPart) -> bool:
        return self.model.config.vision_feature_select_strategy == "full" and encoder.has_cls

    def visual_inputs(self, inputs: ProcessorOutput) -> Mapping[int, Sequence[VisualInput]]:
        grid, with_cls = self.facts.grid, self.keeps_cls(self.encoders[0])
        assert grid is not None
        pixels = inputs.get("pixel_values")
        images = () if pixels is None else pixels
        images = [VisualInput.raster([image], grid, with_cls) for image in images]
        return {self.model.config.image_token_id: images}

    @cached_property
    def facts(self) -> ModelFacts:
        config = self.model.config
        vision = config.vision_config
        side = vision.image_size // vision.patch_size
        hidden_state = config.vision_feature_layer
        if not isinstance(hidden_state, int):
            raise ValueError(
                f"vision_feature_layer must be one layer, got {hidden_state}; the outputs of "
                "several layers differ in length once tokens are dropped"
            )
        # hidden_states[0] is the input of block 0, so hidden_states[i] is what block i - 1 returns
        states = vision.num_hidden_layers + 1
        return ModelFacts(
            depth=config.text_config.num_hidden_layers,
            blocks=vision.num_hidden_layers,
            grid=(side, side),
            has_cls=self.encoders[0].has_cls,
            feature_block=hidden_state % states - 1,
        )
