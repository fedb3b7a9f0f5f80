"""PaliGemma (arXiv:2407.07726): SigLIP, one matrix, and prompts seen in both directions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from mustdrop.models.base import ModelAdapter, ProcessorOutput, VisualInput
from mustdrop.models.encoders import EncoderPart, Part, encoder_for
from mustdrop.strategy import ModelFacts


@dataclass(frozen=True, eq=False)
class PaliGemmaAdapter(ModelAdapter):
    """Adapter of ``PaliGemmaForConditionalGeneration``: an image is its patches in raster order.

    Positions are counted from 1.
    """

    @cached_property
    def encoders(self) -> Sequence[EncoderPart]:
        return [encoder_for(self.base.vision_tower, self.model.config.vision_config.model_type)]

    @property
    def feature_norm(self) -> Part | None:
        return self.encoders[0].module.post_layernorm

    @property
    def causal(self) -> bool:
        return False

    @property
    def image_tokens(self) -> int | None:
        rows, columns = self.facts.grid or (0, 0)
        return rows * columns

    def visual_inputs(self, inputs: ProcessorOutput) -> Mapping[int, Sequence[VisualInput]]:
        grid, pixels = self.facts.grid, inputs.get("pixel_values")
        assert grid is not None
        if pixels is not None and inputs.get("token_type_ids") is None:
            raise ValueError(
                "token_type_ids must be given with images: without them the model attends "
                "causally; pass all that the processor returns"
            )
        images = [VisualInput.raster([image], grid) for image in (() if pixels is None else pixels)]
        return {self.model.config.image_token_id: images}

    @cached_property
    def facts(self) -> ModelFacts:
        text, vision = self.model.config.text_config, self.model.config.vision_config
        side = vision.image_size // vision.patch_size
        return ModelFacts(
            depth=text.num_hidden_layers,
            blocks=vision.num_hidden_layers,
            grid=(side, side),
            has_cls=False,
            feature_block=vision.num_hidden_layers - 1,
        )
