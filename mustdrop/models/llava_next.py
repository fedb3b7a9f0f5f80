"""LLaVA-NeXT (LLaVA-1.6): a small copy and crops, padding cut away, a newline after each row."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import final

import torch
from transformers.models.llava_next.modeling_llava_next import get_anyres_image_grid_shape

from mustdrop.ledger import OFF_GRID
from mustdrop.models.base import ProcessorOutput, VisualInput, sized_images
from mustdrop.models.llava import LlavaAdapter
from mustdrop.strategy import ModelFacts


@final
@dataclass(frozen=True, eq=False)
class LlavaNextAdapter(LlavaAdapter):
    """Adapter of ``LlavaNextForConditionalGeneration``: an image is its small copy and its crops.

    The model's own packing, applied to the numbers of the cells, tells which slot shows which cell.
    """

    @property
    def image_tokens(self) -> int | None:
        return None

    def visual_inputs(self, inputs: ProcessorOutput) -> Mapping[int, Sequence[VisualInput]]:
        config, (rows, columns) = self.model.config, self.facts.grid or (0, 0)
        images = []
        for encoded, size in sized_images(inputs):
            shape = get_anyres_image_grid_shape(
                size, config.image_grid_pinpoints, config.vision_config.image_size
            )
            count = 1 + shape[0] * shape[1]  # the small copy and the crops
            numbers = torch.arange(count * rows * columns, dtype=torch.float64)
            packed, _ = self.base.pack_image_features(
                [numbers.view(count, rows * columns, 1)], [size],
                vision_feature_select_strategy="default",
                image_newline=torch.tensor([float(OFF_GRID)], dtype=torch.float64),
            )  # fmt: skip
            grids = [(rows, columns)] * count
            cells, shown = packed[0][:, 0].long(), list(encoded[:count])
            images.append(VisualInput(grids, cells, shown, crops=shape))
        return {config.image_token_id: images}

    @cached_property
    def facts(self) -> ModelFacts:
        strategy = self.model.config.vision_feature_select_strategy
        if strategy == "full" and self.encoders[0].has_cls:
            raise ValueError(
                "vision_feature_select_strategy='full' keeps the encoder's [CLS], which LLaVA-NeXT "
                "cannot place among the crops: set it to 'default'"
            )
        return super().facts
