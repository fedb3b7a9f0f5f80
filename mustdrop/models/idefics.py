"""Idefics3 and SmolVLM (arXiv:2408.12637, 2504.05299): tiles with text between them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, final

import torch

from mustdrop.models.base import ModelAdapter, ProcessorOutput, VisualInput
from mustdrop.models.encoders import EncoderPart, Part, encoder_for
from mustdrop.strategy import ModelFacts


@final
@dataclass(frozen=True, eq=False)
class IdeficsAdapter(ModelAdapter):
    """Adapter of ``Idefics3ForConditionalGeneration`` and ``SmolVLMForConditionalGeneration``.

    An image is its tiles and, if there are several, a small copy of the whole as the last one. The
    model gets no more than a list of tiles, in which frames of videos stand, too: so every tile and
    every frame is an image of its own. A list that is shorter than others ends in tiles of zeros.
    """

    @property
    def language_model(self) -> Part:
        return self.base.text_model

    @cached_property
    def encoders(self) -> Sequence[EncoderPart]:
        config = self.model.config
        kind = config.vision_config.model_type
        return [encoder_for(self.base.vision_model, kind, unit=config.scale_factor)]

    @property
    def projector(self) -> Part:
        return self.base.connector.modality_projection

    @property
    def feature_norm(self) -> Part:
        return self.encoders[0].module.post_layernorm

    @cached_property
    def facts(self) -> ModelFacts:
        config = self.model.config
        vision, unit = config.vision_config, config.scale_factor
        side = vision.image_size // vision.patch_size
        if side % unit:
            raise ValueError(f"scale_factor must divide the {side} patches of a side, got {unit}")
        return ModelFacts(
            depth=config.text_config.num_hidden_layers,
            blocks=vision.num_hidden_layers,
            grid=(side // unit, side // unit),
            has_cls=False,
            feature_block=vision.num_hidden_layers - 1,
            unit=unit,
        )

    @property
    def processor_fields(self) -> Mapping[str, Any]:
        rows, columns = self.facts.grid or (0, 0)
        return {"image_seq_len": rows * columns}

    def visual_inputs(self, inputs: ProcessorOutput) -> Mapping[int, Sequence[VisualInput]]:
        pixels, mask = inputs.get("pixel_values"), inputs.get("pixel_attention_mask")
        grid, shown = self.facts.grid, []
        assert grid is not None
        if pixels is not None:
            tiles = pixels.flatten(0, 1)
            used = (tiles != 0).flatten(1).any(1)  # the model leaves tiles of zeros out, too
            full = torch.ones_like(used) if mask is None else mask.flatten(0, 1).flatten(1).all(1)
            known = torch.stack([used, full]).tolist()
            for tile, is_used, is_full in zip(tiles, *known, strict=True):
                if is_used and not is_full:
                    raise ValueError(
                        "pixel_attention_mask must be 1 on all pixels of a tile, but a tile is "
                        "padded: resize images to whole tiles, as the checkpoint's processor does"
                    )
                shown += [VisualInput.raster([tile], grid)] if is_used else []
        return {self.model.config.image_token_id: shown}
