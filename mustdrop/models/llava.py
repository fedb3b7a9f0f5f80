"""LLaVA-1.5 (arXiv:2310.03744): CLIP with [CLS], a two-layer projector, a Llama decoder."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import final

from mustdrop.models.base import ModelAdapter, Part
from mustdrop.strategy import ModelFacts

ENCODERS = ("clip_vision_model", "siglip_vision_model")


@final
@dataclass(frozen=True, eq=False)
class LlavaAdapter(ModelAdapter):
    """Adapter of ``LlavaForConditionalGeneration``: an image is its patches in raster order."""

    @property
    def base(self) -> Part:
        return self.model.model

    @property
    def language_model(self) -> Part:
        return self.base.language_model

    @property
    def encoders(self) -> Sequence[Part]:
        tower = self.base.vision_tower
        # before transformers 5.6 the tower wraps the module that has embeddings and blocks
        return [getattr(tower, "vision_model", tower)]

    @property
    def projector(self) -> Part:
        return self.base.multi_modal_projector

    def blocks(self, encoder: Part) -> Sequence[Part]:
        return list(encoder.encoder.layers)

    @property
    def vision_token_ids(self) -> Sequence[int]:
        return [self.model.config.image_token_id]

    @property
    def keeps_cls(self) -> bool:
        """Whether the checkpoint feeds the encoder's [CLS] to the language model as well."""
        return self.model.config.vision_feature_select_strategy == "full" and self.has_cls

    @property
    def has_cls(self) -> bool:
        """Whether the encoder has a [CLS] token; CLIP has one, SigLIP has none."""
        return self.model.config.vision_config.model_type.startswith("clip")

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
        # hidden_states[0] is the input of block 0, so hidden_states[i] is what block i - 1 returns.
        states = vision.num_hidden_layers + 1
        if vision.model_type not in ENCODERS:
            raise ValueError(
                f"the vision encoder must be one of {', '.join(ENCODERS)}, got {vision.model_type}"
            )
        return ModelFacts(
            depth=config.text_config.num_hidden_layers,
            blocks=vision.num_hidden_layers,
            grid=(side, side),
            has_cls=self.has_cls,
            feature_block=hidden_state % states - 1,
        )
