"""CLIP's vision encoder (arXiv:2103.00020): [CLS], then the patches of one fixed grid."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import Tensor

from mustdrop.models.encoders.base import EncoderPart, Part


@dataclass(frozen=True, eq=False)
class ClipEncoder(EncoderPart):
    """Parts of ``CLIPVisionModel``; states are [images, tokens, dim]."""

    has_cls = True

    @cached_property
    def blocks(self) -> Sequence[Part]:
        return list(self.module.encoder.layers)

    def attention(self, block: Part) -> Part:
        return block.self_attn

    def mlp(self, block: Part) -> tuple[Part, Part]:
        return block.layer_norm2, block.mlp

    def pixels(self, args: tuple, kwargs: Mapping[str, Any]) -> Sequence[Tensor]:
        return list(args[0] if args else kwargs["pixel_values"])

    def embed(self, pixels: Tensor, grid: tuple[int, int]) -> Tensor:
        return self.module.pre_layrnorm(self.module.embeddings(pixels))

    def attend(self, index: int, hidden: Tensor, mask: Tensor, grid: tuple[int, int]) -> Tensor:
        block = self.blocks[index]
        normed = block.layer_norm1(hidden)
        return hidden + block.self_attn(hidden_states=normed, attention_mask=mask)[0]
