"""EncoderPart: where a vision encoder keeps its blocks, and how its states are laid out."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

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
    """

    module: Part
    has_cls: ClassVar[bool] = False
    unit: ClassVar[int] = 1

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

    @abstractmethod
    def embed(self, pixels: Tensor) -> Tensor:
        """Compute the input of the first block for one image, as [1, tokens, dim]."""

    @abstractmethod
    def attend(self, block: Part, hidden: Tensor, mask: Tensor) -> Tensor:
        """Run the first half of a block: attention with an additive mask, and the residual."""
