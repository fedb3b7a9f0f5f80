"""EncoderPart: where a vision encoder keeps its blocks, and how its states are laid out."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import torch
from jaxtyping import Int
from torch import Tensor

# The attributes of transformers' modules are known at run time only, so parts of models are Any.
Part = Any


@dataclass(frozen=True, eq=False)
class EncoderPart(ABC):
    """Access to the parts of one vision encoder.

    Attributes:
        module: Module of the encoder.
        has_cls: Whether a [CLS] token stands before the patches.
        unit: Number of patches along each side of a cell, which one vision token shows.
        packed: Whether states hold the patches of all images in one sequence, without a mask.
    """

    module: Part
    has_cls: ClassVar[bool] = False
    unit: ClassVar[int] = 1
    packed: ClassVar[bool] = False

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
        """Compute the input of the first block, [images, tokens, dim], for images of one grid."""

    @abstractmethod
    def attend(self, index: int, hidden: Tensor, mask: Tensor, grid: tuple[int, int]) -> Tensor:
        """Run the first half of a block on one image: attention and its residual connection.

        Args:
            index: Index of the block.
            hidden: States [1, tokens, dim]; cells in raster order.
            mask: Numbers that are added to the attention scores.
            grid: Cells of the image as (rows, columns).
        """
