"""Qwen's vision encoders (arXiv:2409.12191, 2502.13923, 2511.21631): patches in one sequence."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn

from mustdrop.models.encoders.base import EncoderPart, Part


@dataclass(frozen=True, eq=False)
class QwenEncoder(EncoderPart):
    """Parts of the vision transformers of Qwen2-VL and Qwen2.5-VL.

    States are [patches of all images, dim]. The 2 x 2 patches of a cell stand one after the other,
    and Qwen2.5-VL sorts the cells of an image by attention window.
    """

    unit: int = 2
    packed = True

    @cached_property
    def blocks(self) -> Sequence[Part]:
        return list(self.module.blocks)

    def attention(self, block: Part) -> Part:
        return block.attn

    def mlp(self, block: Part) -> tuple[Part, Part]:
        return block.norm2, block.mlp

    def pixels(self, args: tuple, kwargs: Mapping[str, Any]) -> Sequence[Tensor]:
        patches = args[0] if args else kwargs["hidden_states"]
        return [image for part in frames(patches, kwargs["grid_thw"].tolist()) for image in part]

    def order(self, grid: tuple[int, int]) -> Int[Tensor, " cells"]:
        if self.window is None:
            return super().order(grid)
        row, column = _coordinates(grid, 1)
        keys = [column, row, column // self.window, row // self.window]  # the last counts most
        order = torch.arange(len(row))
        for key in keys:
            order = order[key[order].argsort(stable=True)]
        return order

    @property
    def window(self) -> int | None:
        size = getattr(self.module.config, "window_size", None)
        return None if size is None else size // self.unit // self.module.config.patch_size

    @property
    def full_blocks(self) -> Sequence[int]:
        return getattr(self.module.config, "fullatt_block_indexes", ())

    def embed(self, pixels: Tensor, grid: tuple[int, int]) -> Tensor:
        return self.module.patch_embed(pixels.flatten(0, 1)).view(*pixels.shape[:2], -1)

    def attend(self, index: int, hidden: Tensor, mask: Tensor, grid: tuple[int, int]) -> Tensor:
        block = self.blocks[index]
        attention, states = block.attn, block.norm1(hidden[0])
        row, column = _coordinates(grid, self.unit)
        if self.window and index not in self.full_blocks:
            side = self.window * self.unit
            window = torch.stack([row // side, column // side], 1)
            apart = (window[:, None] != window[None]).any(-1).to(mask.device)
            mask = mask.masked_fill(apart, torch.finfo(mask.dtype).min)
        query, key, value = (
            attention.qkv(states).view(len(row), 3, attention.num_heads, -1).unbind(1)
        )
        cos, sin = _rotary(row, column, query.shape[-1], states)
        query, key = query * cos + _turned(query) * sin, key * cos + _turned(key) * sin
        scores = torch.einsum("ihd,jhd->hij", query, key) * query.shape[-1] ** -0.5
        weights = (scores + mask[0]).softmax(-1)
        attended = torch.einsum("hij,jhd->ihd", weights, value).flatten(1)
        return hidden + attention.proj(attended)


@dataclass(frozen=True, eq=False)
class Qwen3Encoder(QwenEncoder):
    """Parts of the vision transformer of Qwen3-VL: no windows, but positions that are learned.

    The outputs of some blocks are projected too, for the first layers of the language model.
    """

    @cached_property
    def added_projectors(self) -> Mapping[int, Part]:
        mergers = zip(
            self.module.deepstack_visual_indexes, self.module.deepstack_merger_list, strict=True
        )
        return dict(sorted(mergers, key=lambda pair: pair[0]))

    def embed(self, pixels: Tensor, grid: tuple[int, int]) -> Tensor:
        learned = self.module.pos_embed.weight
        side = math.isqrt(len(learned))
        size = (grid[0] * self.unit, grid[1] * self.unit)
        positions = nn.functional.interpolate(
            learned.T.view(1, -1, side, side), size, mode="bilinear", align_corners=True
        )[0]
        row, column = _coordinates(grid, self.unit)
        return super().embed(pixels, grid) + positions[:, row, column].T


def _coordinates(grid: tuple[int, int], unit: int) -> tuple[Tensor, Tensor]:
    """Row and column of the patches of an image, cell after cell in raster order."""
    rows, columns = grid
    cell = torch.arange(rows * columns)[:, None]
    within = torch.arange(unit**2)
    row = cell // columns * unit + within // unit
    column = cell % columns * unit + within % unit
    return row.flatten(), column.flatten()


def _rotary(row: Tensor, column: Tensor, dim: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Rotary embeddings [patches, 1, dim]; half of the frequencies turn by row, half by column."""
    frequencies = 1.0 / 10000.0 ** (torch.arange(0, dim // 2, 2) / (dim // 2))
    angles = torch.cat([axis[:, None] * frequencies for axis in (row, column)], 1).repeat(1, 2)
    return angles.cos()[:, None].to(like), angles.sin()[:, None].to(like)


def _turned(states: Tensor) -> Tensor:
    """The second half of the numbers, negated, before the first one."""
    first, second = states.chunk(2, -1)
    return torch.cat([-second, first], -1)


def frames(patches: Tensor, grids: Sequence[Sequence[int]]) -> list[Sequence[Tensor]]:
    """Split the patches of images and videos into those of the frames of each.

    Args:
        patches: Patches of all images and videos.
        grids: Numbers of patches of each image or video along time, rows and columns.
    """
    parts = patches.split([math.prod(grid) for grid in grids])
    return [
        part.split(rows * columns) for part, (_, rows, columns) in zip(parts, grids, strict=True)
    ]
