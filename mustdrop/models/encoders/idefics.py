"""Vision encoder of Idefics3 and SmolVLM (arXiv:2408.12637, 2504.05299): SigLIP, then a norm."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mustdrop.models.encoders.base import cells_together
from mustdrop.models.encoders.clip import ClipEncoder


@dataclass(frozen=True, eq=False)
class IdeficsEncoder(ClipEncoder):
    """Parts of ``Idefics3VisionTransformer`` and ``SmolVLMVisionTransformer``."""

    has_cls = False
    gathered = True

    def pixels(self, args: tuple, kwargs: Mapping[str, Any]) -> Sequence[Tensor]:
        return list(kwargs["pixel_values"])

    def embed(self, pixels: Tensor, grid: tuple[int, int]) -> Tensor:
        rows, columns = (side // self.module.patch_size for side in pixels.shape[-2:])
        everywhere = torch.ones(len(pixels), rows, columns, dtype=torch.bool, device=pixels.device)
        return cells_together(self.module.embeddings(pixels, everywhere), 0, self.unit)
