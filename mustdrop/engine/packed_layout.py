"""Layout of encoders whose states hold the patches of all images in one sequence."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mustdrop.engine.encoder_layout import EncoderLayout


@dataclass(frozen=True, eq=False)
class PackedLayout(EncoderLayout):
    """States [patches of all images, dim], as in Qwen's encoders; attention stays in segments.

    The encoder holds the cells of an image in an order of its own (by attention window), and the
    patches of a cell one after the other. Survivors keep that order, so a segment stays unbroken.

    Attributes:
        memo: What follows from an argument that all blocks share: its id -> argument and result.
    """

    memo: dict[tuple[str, int], tuple[Any, Any]] = field(default_factory=dict)

    def _shared(self, name: str, given: Any, compute: Callable[[Any], Any]) -> Any:
        """Result of ``compute``, once for all blocks that get the same argument."""
        key = (name, id(given))  # the argument is stored too, so that its id stays its own
        if key not in self.memo:
            self.memo[key] = (given, compute(given))
        return self.memo[key][1]

    @property
    def unit(self) -> int:
        """Number of patches of a cell."""
        return self.part.unit**2

    @cached_property
    def ranks(self) -> list[Int[Tensor, " _"]]:
        """Place of each token among all cells of the batch in the encoder's order."""
        ranks, start = [], 0
        for image in self.images:
            ranks.append(start + self.part.order(image.image.grid).argsort())
            start += image.total
        # one copy to the device for all images
        device, sizes = self.cells[0].device, [len(part) for part in ranks]
        of_images = torch.cat(ranks).to(device, non_blocking=True).split(sizes)
        return [part[cells] for part, cells in zip(of_images, self.cells, strict=True)]

    @cached_property
    def places(self) -> list[Int[Tensor, " _"]]:
        """Place of each token among the tokens that are left, in the encoder's order."""
        places, start = [], 0
        for ranks in self.ranks:
            places.append(start + ranks.argsort().argsort())
            start += len(ranks)
        return places

    def split(self, states: Tensor, front: int) -> tuple[Tensor, Float[Tensor, "images most dim"]]:
        rows = states.reshape(-1, self.unit * states.shape[-1])
        tokens = [rows[index] for index in self.places]
        return states[:0], nn.utils.rnn.pad_sequence(tokens, batch_first=True)

    def join(self, front: Tensor, tokens: Float[Tensor, "images most dim"]) -> Tensor:
        rows = [row[:length] for row, length in zip(tokens, self.lengths, strict=True)]
        order = torch.cat(self.places).argsort()
        return torch.cat(rows)[order].reshape(-1, tokens.shape[-1] // self.unit)

    def fit(
        self, block: nn.Module, states: Tensor, args: tuple, kwargs: dict[str, Any]
    ) -> tuple[tuple, dict[str, Any]]:
        if sum(self.lengths) == sum(image.total for image in self.images):
            return (states, *args[1:]), kwargs
        fitting = {
            "cu_seqlens": self._shared("segments", kwargs["cu_seqlens"], self.segments),
            "position_embeddings": self._shared(
                "rotary",
                kwargs["position_embeddings"],
                lambda given: tuple(part[self._patches] for part in given),
            ),
        }
        return (states, *args[1:]), {**kwargs, **fitting}

    def pairs(self, arguments: Mapping[str, Any]) -> Int[Tensor, " images"] | None:
        if self.part.window is None:
            return None
        return self._shared("pairs", arguments["cu_seqlens"], self._pairs)

    def _pairs(self, ends: Int[Tensor, " segments"]) -> Int[Tensor, " images"]:
        owner = torch.searchsorted(self._image_ends, ends[1:].long())
        return torch.zeros_like(self._image_ends).index_add_(0, owner, ends.long().diff() ** 2)

    def segments(self, ends: Int[Tensor, " segments"]) -> Int[Tensor, " fewer"]:
        """Ends of the attention segments that are left, in patches, from those of all patches.

        This waits for the device where images have several segments.
        """
        if self._whole(ends):
            return nn.functional.pad(self._image_ends, (1, 0)).to(ends.dtype)
        before = nn.functional.pad(self._left.long().cumsum(0), (1, 0)) * self.unit
        return before[(ends // self.unit).long()].unique_consecutive().to(ends.dtype)

    def segment_lengths(self, ends: Int[Tensor, " segments"]) -> list[int]:
        """Number of patches of each attention segment, from the ends of those that are left.

        This waits for the device where images have several segments.
        """
        if self._whole(ends):
            return [length * self.unit for length in self.lengths]
        return ends.diff().tolist()

    def _whole(self, ends: Int[Tensor, " segments"]) -> bool:
        """Whether each segment is an image; no image is without tokens."""
        return len(ends) == len(self.images) + 1

    def expand(self, front: int, projected: Tensor) -> Tensor:
        total = sum(image.total for image in self.images)
        empty = projected.new_zeros(total, projected.shape[-1])
        return empty.index_copy(0, self._in_order, projected)

    @cached_property
    def _image_ends(self) -> Int[Tensor, " images"]:
        """Ends of the images, in patches that are left."""
        lengths = torch.tensor(self.lengths).to(self.cells[0].device, non_blocking=True)
        return lengths.cumsum(0) * self.unit

    @cached_property
    def _in_order(self) -> Int[Tensor, " tokens"]:
        """Rank of each token that is left, in the encoder's order."""
        return torch.cat(self.ranks).sort().values

    @cached_property
    def _left(self) -> Bool[Tensor, " cells"]:
        """Whether each cell of the batch, in the encoder's order, is left."""
        total = sum(image.total for image in self.images)
        left = torch.zeros(total, dtype=torch.bool, device=self._in_order.device)
        return left.index_fill_(0, self._in_order, True)

    @cached_property
    def _patches(self) -> Int[Tensor, " patches"]:
        """Rank of each patch that is left, in the encoder's order."""
        within = torch.arange(self.unit, device=self._in_order.device)
        return (self._in_order[:, None] * self.unit + within).flatten()
