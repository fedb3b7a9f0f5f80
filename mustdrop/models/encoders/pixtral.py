"""Pixtral's vision encoder (arXiv:2410.07073): patches of all images in one sequence."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from mustdrop.models.encoders.base import EncoderPart, Part

WHOLE = "the patches of all images stand in one sequence under one mask that blocks get ready-made"


@dataclass(frozen=True, eq=False)
class PixtralEncoder(EncoderPart):
    """Parts of ``PixtralVisionModel``; states are [1, patches of all images, dim]."""

    @cached_property
    def blocks(self) -> Sequence[Part]:
        return list(self.module.transformer.layers)

    def attention(self, block: Part) -> Part:
        return block.attention

    def mlp(self, block: Part) -> tuple[Part, Part]:
        return block.ffn_norm, block.feed_forward

    def pixels(self, args: tuple, kwargs: Mapping[str, Any]) -> Sequence[Tensor]:
        images = args[0] if args else kwargs["pixel_values"]
        sizes = torch.as_tensor(kwargs["image_sizes"]).tolist()
        return [
            image[:, :height, :width] for image, (height, width) in zip(images, sizes, strict=True)
        ]

    def embed(self, pixels: Tensor, grid: tuple[int, int]) -> Tensor:
        return self.module.ln_pre(self.module.patch_conv(pixels).flatten(2).transpose(1, 2))

    def attend(self, index: int, hidden: Tensor, mask: Tensor, grid: tuple[int, int]) -> Tensor:
        raise AssertionError(f"no token leaves inside this encoder: {WHOLE}")
