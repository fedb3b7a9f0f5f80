"""InternVL's vision encoder (arXiv:2504.10479): [CLS], then the patches of a tile row by row."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import Tensor

from mustdrop.models.encoders.base import EncoderPart, Part, cells_together


@dataclass(frozen=True, eq=False)
class InternVLEncoder(EncoderPart):
    """Parts of ``InternVLVisionModel``; states are [tiles, tokens, dim]."""

    unit: int = 2
    has_cls = True
    gathered = True
    masks_attention = True

    @cached_property
    def blocks(self) -> Sequence[Part]:
        return list(self.module.encoder.layer)

    def attention(self, block: Part) -> Part:
        return block.attention

    def mlp(self, block: Part) -> tuple[Part, Part]:
        return block.layernorm_after, block.mlp

    def complete(self, block: Part, hidden: Tensor) -> Tensor:
        return hidden + block.lambda_2 * block.mlp(block.layernorm_after(hidden))

    @property
    def element_wise(self) -> Collection[Part]:
        return [self.module.embeddings, *self.blocks]

    def pixels(self, args: tuple, kwargs: Mapping[str, Any]) -> Sequence[Tensor]:
        return list(args[0] if args else kwargs["pixel_values"])

    def embed(self, pixels: Tensor, grid: tuple[int, int]) -> Tensor:
        return cells_together(self.module.embeddings(pixels), 1, self.unit)

    def attend(self, index: int, hidden: Tensor, mask: Tensor, grid: tuple[int, int]) -> Tensor:
        block = self.blocks[index]
        normed = block.layernorm_before(hidden)
        return hidden + block.lambda_1 * block.attention(normed, attention_mask=mask)[0]
