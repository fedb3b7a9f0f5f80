"""Layouts of encoders behind which the model makes one state of the patches of a cell.

It puts them side by side, or takes their mean. It needs the patches of all cells for that, in
raster order. Nothing in the blocks depends on the order of patches, so after the first decision
those of a cell stand one after the other.
"""

from dataclasses import dataclass
from typing import Any

from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from mustdrop.engine.encoder_layout import EncoderLayout, PaddedLayout
from mustdrop.models.encoders.base import cells_apart, cells_together


@dataclass(frozen=True, eq=False)
class GroupedLayout(PaddedLayout):
    """States [images, front + patches of most tokens, dim]; a token's patches stand together."""

    @property
    def patches(self) -> int:
        return self.part.unit**2

    def split(self, states: Tensor, front: int) -> tuple[Tensor, Float[Tensor, "images most dim"]]:
        ahead, patches = super().split(states, front)
        return ahead, rearrange(patches, "b (n p) d -> b n (p d)", p=self.patches)

    def join(self, front: Tensor, tokens: Float[Tensor, "images most dim"]) -> Tensor:
        return super().join(front, rearrange(tokens, "b n (p d) -> b (n p) d", p=self.patches))

    def fit(
        self, block: nn.Module, states: Tensor, args: tuple, kwargs: dict[str, Any]
    ) -> tuple[tuple, dict[str, Any]]:
        """Arguments of a block, without the mask that the model made for all patches."""
        return super().fit(block, states, (states, *[None] * len(args[1:])), kwargs)

    def whole(self, states: Tensor, front: int) -> Tensor:
        """States of the patches of all cells in raster order; zeros where a token has left."""
        ahead, tokens = self.split(states, front)
        states = self.join(ahead, self.expand(0, tokens))
        return cells_apart(states, front, self.part.unit)

    def narrowed(self, wide: Float[Tensor, "images cells dim"]) -> tuple[PaddedLayout, Tensor]:
        """Layout at the projector, and the states of the tokens that are left there."""
        rows = [row[cells] for row, cells in zip(wide, self.cells, strict=True)]
        layout = PaddedLayout(self.part, self.images, self.cells)
        return layout, nn.utils.rnn.pad_sequence(rows, batch_first=True)


@dataclass(frozen=True, eq=False)
class RasterLayout(GroupedLayout):
    """States in front of any decision: [images, front + patches in raster order, dim]."""

    def now(self, weighted: bool | None = None) -> EncoderLayout:
        cells = [image.cells for image in self.images]
        return GroupedLayout(self.part, self.images, cells, bool(weighted))

    def fit(
        self, block: nn.Module, states: Tensor, args: tuple, kwargs: dict[str, Any]
    ) -> tuple[tuple, dict[str, Any]]:
        return PaddedLayout.fit(self, block, states, args, kwargs)

    def split(self, states: Tensor, front: int) -> tuple[Tensor, Float[Tensor, "images most dim"]]:
        return super().split(cells_together(states, front, self.part.unit), front)

    def join(self, front: Tensor, tokens: Float[Tensor, "images most dim"]) -> Tensor:
        return cells_apart(super().join(front, tokens), front.shape[1], self.part.unit)

    def whole(self, states: Tensor, front: int) -> Tensor:
        return states

    def narrowed(self, wide: Float[Tensor, "images cells dim"]) -> tuple[PaddedLayout, Tensor]:
        return PaddedLayout(self.part, self.images, self.cells), wide
