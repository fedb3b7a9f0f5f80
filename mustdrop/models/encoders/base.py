"""EncoderPart: where a vision encoder keeps its blocks, and how its states are laid out."""

import math
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

# The attributes of transformers' modules are known at run time only, so parts of models are Any.
Part = Any


@dataclass(frozen=True, eq=False)
class EncoderPart(ABC):
    """Access to the parts of one vision encoder.

    Attributes:
        module: Module of the encoder.
        unit: Number of patches along each side of a cell, which one vision token shows.
        has_cls: Whether a [CLS] token stands before the patches.
        packed: Whether states hold the patches of all images in one sequence, without a mask.
        gathered: Whether the blocks see patches in raster order, and the model makes one state of
            the patches of a cell behind ``module``, for which it needs those of all cells.
        masks_attention: Whether blocks take no mask, but their attention modules do.
    """

    module: Part
    unit: int = 1
    has_cls: ClassVar[bool] = False
    packed: ClassVar[bool] = False
    gathered: ClassVar[bool] = False
    masks_attention: ClassVar[bool] = False

    @property
    def window(self) -> int | None:
        """Side of an attention window in cells; None: all blocks attend to the whole image."""
        return None

    @property
    def full_blocks(self) -> Sequence[int]:
        """Blocks that attend to the whole image although there are windows."""
        return ()

    @cached_property
    @abstractmethod
    def blocks(self) -> Sequence[Part]:
        """Blocks in the order in which they run."""

    @abstractmethod
    def attention(self, block: Part) -> Part:
        """Attention module of a block."""

    @abstractmethod
    def mlp(self, block: Part) -> tuple[Part, Part]:
        """Second half of a block: the norm before its MLP, and the MLP."""

    def complete(self, block: Part, hidden: Tensor) -> Tensor:
        """Run the second half of a block: norm, MLP and their residual connection."""
        norm, mlp = self.mlp(block)
        return hidden + mlp(norm(hidden))

    @property
    def element_wise(self) -> Collection[Part]:
        """Modules with parameters that are used element by element, next to other modules."""
        return ()

    @abstractmethod
    def pixels(self, args: tuple, kwargs: Mapping[str, Any]) -> Sequence[Tensor]:
        """Pixels of each image of a call of ``module``."""

    @cached_property
    def added_projectors(self) -> Mapping[int, Part]:
        """Modules that project the output of a block for a layer of the language model (DeepStack).

        The keys are the blocks, in the order of the layers.
        """
        return {}

    def order(self, grid: tuple[int, int]) -> Int[Tensor, " cells"]:
        """Raster index of the cells of an image in the order in which packed states hold them."""
        return torch.arange(grid[0] * grid[1])

    @abstractmethod
    def embed(self, pixels: Tensor, grid: tuple[int, int]) -> Tensor:
        """Compute the input of the first block, [images, tokens, dim], for images of one grid.

        The patches of a cell stand one after the other.
        """

    def gather(
        self, states: Float[Tensor, "images patches dim"]
    ) -> Float[Tensor, "images cells _"]:
        """Make one state of the patches of each cell, which follow one another: side by side."""
        return rearrange(states, "b (n p) d -> b n (p d)", p=self.unit**2)

    @abstractmethod
    def attend(self, index: int, hidden: Tensor, mask: Tensor, grid: tuple[int, int]) -> Tensor:
        """Run the first half of a block on one image: attention and its residual connection.

        Args:
            index: Index of the block.
            hidden: States [1, tokens, dim]; cells in raster order.
            mask: Numbers that are added to the attention scores.
            grid: Cells of the image as (rows, columns).
        """


ROWS, CELLS = "b (h a w c) d", "b (h w a c) d"  # patches row by row; cell by cell


def cells_together(states: Tensor, front: int, unit: int) -> Tensor:
    """States [images, tokens, dim] of square images, with the patches of a cell together.

    Args:
        states: States with the patches in raster order.
        front: Number of tokens in front of the patches.
        unit: Number of patches along each side of a cell.
    """
    return _reordered(states, front, unit, f"{ROWS} -> {CELLS}")


def cells_apart(states: Tensor, front: int, unit: int) -> Tensor:
    """The reverse of :func:`cells_together`."""
    return _reordered(states, front, unit, f"{CELLS} -> {ROWS}")


def _reordered(states: Tensor, front: int, unit: int, pattern: str) -> Tensor:
    patches = states[:, front:]
    side = math.isqrt(patches.shape[1]) // unit
    patches = rearrange(patches, pattern, h=side, a=unit, w=side, c=unit)
    return torch.cat([states[:, :front], patches], 1)
