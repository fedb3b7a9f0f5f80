"""How the tokens of several images lie in the states of an encoder, and how blocks get fewer.

A layout turns a module's states into one row of tokens per image, ``[images, most tokens, dim]``
padded on the right, and back. A token is a cell: its patches side by side.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mustdrop.engine.image import EncodedImage, key_mask
from mustdrop.engine.refuse import is_eager, is_flash
from mustdrop.models import EncoderPart


@dataclass(frozen=True, eq=False)
class EncoderLayout(ABC):
    """Layout of the images of an encoder call after the decisions so far.

    Attributes:
        part: Parts of the encoder.
        images: State of each image.
        cells: Cells in whose place the tokens of each image stand.
        weighted: Whether later blocks add the log sizes of tokens to their attention scores.
    """

    part: EncoderPart
    images: Sequence[EncodedImage]
    cells: Sequence[Int[Tensor, " _"]]
    weighted: bool = False

    @property
    def lengths(self) -> list[int]:
        """Number of tokens of each image."""
        return [len(cells) for cells in self.cells]

    def now(self, weighted: bool | None = None) -> "EncoderLayout":
        """Layout of the same images as they are now."""
        weighted = self.weighted if weighted is None else weighted
        return type(self)(self.part, self.images, [image.cells for image in self.images], weighted)

    @abstractmethod
    def split(self, states: Tensor, front: int) -> tuple[Tensor, Float[Tensor, "images most dim"]]:
        """Split states into ``front`` tokens in front of each image, such as [CLS], and tokens."""

    @abstractmethod
    def join(self, front: Tensor, tokens: Float[Tensor, "images most dim"]) -> Tensor:
        """Join what :meth:`split` returns."""

    @abstractmethod
    def fit(
        self, block: nn.Module, states: Tensor, args: tuple, kwargs: dict[str, Any]
    ) -> tuple[tuple, dict[str, Any]]:
        """Arguments of a block that fit the tokens that are left."""

    def attention_mask(self, attention: nn.Module, states: Tensor) -> Tensor | None:
        """Mask of padded states for an attention module; None: the module needs none."""
        return None

    def pairs(self, arguments: Mapping[str, Any]) -> Int[Tensor, " images"] | None:
        """Pairs of patches that attend to one another, per image; None: all pairs of an image."""
        return None

    @abstractmethod
    def expand(self, front: int, projected: Tensor) -> Tensor:
        """Put projected tokens into the places of their cells, and leave the others empty."""


@dataclass(frozen=True, eq=False)
class PaddedLayout(EncoderLayout):
    """States [images, front + most tokens, dim], as in CLIP and SigLIP.

    Attributes:
        masks: Mask of these images, once it was made.
    """

    masks: list[Tensor] = field(default_factory=list)

    @property
    def patches(self) -> int:
        """Number of states of a token."""
        return 1

    def split(self, states: Tensor, front: int) -> tuple[Tensor, Float[Tensor, "images most dim"]]:
        return states[:, :front], states[:, front:]

    def join(self, front: Tensor, tokens: Float[Tensor, "images most dim"]) -> Tensor:
        return torch.cat([front, tokens], 1)

    def fit(
        self, block: nn.Module, states: Tensor, args: tuple, kwargs: dict[str, Any]
    ) -> tuple[tuple, dict[str, Any]]:
        if self.part.masks_attention:
            return (states, *args[1:]), kwargs
        mask = self.attention_mask(self.part.attention(block), states)
        return (states, *args[1:]) if mask is None else (states, mask, *args[2:]), kwargs

    def attention_mask(self, attention: nn.Module, states: Tensor) -> Tensor | None:
        """Key-padding mask of a ragged batch, with the tokens' log sizes if they are weights."""
        if len({*self.lengths}) == 1 and not self.weighted:
            return None
        if not self.masks:  # the same in all blocks up to the next decision
            mask = key_mask(
                self.images, int(self.part.has_cls), states,
                added=is_eager(attention) or self.weighted, weighted=self.weighted,
                patches=self.patches,
            )  # fmt: skip
            self.masks.append(mask if is_flash(attention) else mask[:, None, None, :])
        return self.masks[0]

    def expand(self, front: int, projected: Tensor) -> Tensor:
        empty = projected.new_zeros(self.images[0].total, projected.shape[-1])
        # ``index_copy`` is not in place, so that gradients pass
        rows = [
            empty.index_copy(0, cells, states[: len(cells)])
            for states, cells in zip(projected[:, front:], self.cells, strict=True)
        ]
        full = torch.stack(rows)
        return torch.cat([projected[:, :front], full], 1) if front else full
