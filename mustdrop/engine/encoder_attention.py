"""Attention inside the encoder that vision strategies read: [CLS] or received, queries and keys."""

from collections.abc import Collection
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mustdrop.engine.encoder_layout import EncoderLayout
from mustdrop.engine.packed_layout import PackedLayout
from mustdrop.functional import attention_rows, received_attention


@dataclass(eq=False)
class EncoderAttention:
    """Records what strategies read of some blocks in the state of the images.

    Attributes:
        scores: Blocks whose attention to the patches is read.
        queries_keys: Blocks whose queries and keys are read.
        received: Whether the attention that a patch receives from all patches stands for the
            attention of [CLS].
    """

    scores: Collection[int]
    queries_keys: Collection[int]
    received: bool
    segments: list[tuple[Tensor, Tensor, float]] = field(default_factory=list)

    @property
    def blocks(self) -> set[int]:
        """All blocks that are read."""
        return {*self.scores, *self.queries_keys}

    def probe(self, query: Tensor, key: Tensor, scaling: float) -> None:
        """Store the queries and keys of one call of the attention function."""
        self.segments.append((query, key, scaling))

    def record(self, index: int, layout: EncoderLayout, ends: Tensor | None) -> None:
        """Record what is read of a block whose attention has just run.

        Args:
            index: Index of the block.
            layout: Layout of its images.
            ends: Ends of the attention segments of packed states, in patches.
        """
        calls, self.segments = self.segments, []
        if ends is None:
            (query, key, scaling), *_ = calls
            self._padded(index, layout, query, key, scaling)
        else:
            assert isinstance(layout, PackedLayout)
            query = torch.cat([query[0] for query, _, _ in calls], 1)
            key = torch.cat([key[0] for _, key, _ in calls], 1)
            self._packed(index, layout, query, key, calls[0][2], ends)

    def _padded(
        self, index: int, layout: EncoderLayout, query: Tensor, key: Tensor, scaling: float
    ) -> None:
        cls, patches = int(layout.part.has_cls), layout.part.unit**2
        for image, q, k in zip(layout.images, query, key, strict=True):
            states = cls + len(image) * patches
            q, k = q[:, :states], k[:, :states]
            if index in self.scores:
                bias = image.log_sizes(cls, patches) if layout.weighted else None
                rows = q[:, cls:] if self.received else q[:, :1]
                scores = (
                    received_attention(rows, k, scaling, bias=bias)
                    if self.received
                    else attention_rows(rows, k, scaling, bias=bias)[:, 0]
                )
                # [heads, patches] -> [heads, cells]
                image.cls_attention[index] = layout.split(scores[..., None], cls)[1].mean(-1)
                image.count_macs(rows.shape[1] * states * q.shape[0] * q.shape[2])
            if index in self.queries_keys:
                image.queries_keys[index] = _widened(layout, q, cls), _widened(layout, k, cls)

    def _packed(
        self,
        index: int,
        layout: PackedLayout,
        query: Float[Tensor, "heads patches dim"],
        key: Float[Tensor, "heads patches dim"],
        scaling: float,
        ends: Int[Tensor, " segments"],
    ) -> None:
        heads, _, dim = query.shape
        if index in self.scores:
            lengths = layout.segment_lengths(ends)
            parts = zip(query.split(lengths, 1), key.split(lengths, 1), strict=True)
            sums = [received_attention(q, k, scaling) * q.shape[1] for q, k in parts]
            received = torch.cat(sums, 1)
            _, tokens = layout.split(received.T.reshape(-1, heads), 0)
            unit, remaining = layout.part.unit**2, iter(lengths)
            for image, row in zip(layout.images, tokens, strict=True):
                patches = len(image) * unit
                while patches:  # no segment holds patches of two images
                    length = next(remaining)
                    image.count_macs(length**2 * heads * dim)
                    patches -= length
                cells = row[: len(image)].view(len(image), unit, heads)
                # the mean over all patches of the image; those of other windows give nothing
                image.cls_attention[index] = cells.mean(1).T / (len(image) * unit)
        if index in self.queries_keys:
            pair = [self._cells(layout, states) for states in (query, key)]
            for image, q, k in zip(layout.images, *pair, strict=True):
                image.queries_keys[index] = q, k

    @staticmethod
    def _cells(
        layout: EncoderLayout, states: Float[Tensor, "heads patches dim"]
    ) -> list[Float[Tensor, "heads _ wide"]]:
        """Queries or keys of the cells of each image: those of its patches side by side."""
        heads, patches, dim = states.shape
        _, tokens = layout.split(states.transpose(0, 1).reshape(patches, heads * dim), 0)
        unit = layout.part.unit**2
        return [
            row[: len(image)].view(len(image), unit, heads, dim).permute(2, 0, 1, 3).flatten(2)
            for image, row in zip(layout.images, tokens, strict=True)
        ]


def _widened(
    layout: EncoderLayout, states: Float[Tensor, "heads n dim"], cls: int
) -> Float[Tensor, "heads all wide"]:
    """Queries or keys of [CLS] and the tokens; [CLS] is repeated for each patch of a token."""
    ahead, tokens = layout.split(states, cls)
    return torch.cat([ahead.repeat(1, 1, layout.part.unit**2), tokens], 1)
