"""Images of LLaVA-OneVision: a small copy, and one grid of all crops next to one another."""

from collections.abc import Callable, Sequence

import torch
from einops import rearrange
from torch import Tensor
from transformers.models.llava_onevision.modeling_llava_onevision import unpad_image

from mustdrop.ledger import OFF_GRID
from mustdrop.models.base import VisualInput


def stitched(
    encoded: Tensor,
    size: Sequence[int],
    shape: tuple[int, int],
    grid: tuple[int, int],
    packing: Callable[..., tuple],
) -> VisualInput:
    """What an image's vision tokens show.

    Args:
        encoded: Pixels of the small copy and of the crops, [1 + crops, 3, side, side].
        size: (height, width) of the image.
        shape: (rows, columns) of the crops; (0, 0): there is only the small copy.
        grid: (rows, columns) of the patches of the copy and of a crop.
        packing: The model's own ``pack_image_features``; it tells how many slots there are, and
            where its newlines stand.
    """
    patches, crops = grid[0] * grid[1], shape[0] * shape[1]
    features = [torch.zeros(1 + crops, patches, 1)]
    packed, _ = packing(features, [size], image_newline=torch.ones(1))
    newline = packed[0][:, 0] == 1
    cells = torch.where(newline, OFF_GRID, (~newline).cumsum(0) - 1)
    if not crops:
        return VisualInput([grid], cells, [encoded[0]], tiles=[1])
    lines = int(newline.sum())
    columns = (len(newline) - patches) // lines - 1
    picture = _without_padding(encoded[1 : 1 + crops], size, shape, grid)
    return VisualInput([grid, (lines, columns)], cells, [encoded[0], picture], tiles=[1, crops])


def _without_padding(
    crops: Tensor, size: Sequence[int], shape: tuple[int, int], grid: tuple[int, int]
) -> Tensor:
    """Pixels of the crops next to one another, without the padding that the model cuts away."""
    picture = rearrange(crops, "(r n) c h w -> c (r h) (n w)", r=shape[0])
    whole = [shape[0] * grid[0], shape[1] * grid[1]]
    left = unpad_image(torch.zeros(1, *whole), size)
    for axis, patches in enumerate(whole, 1):
        cut = (patches - left.shape[axis]) // 2 * picture.shape[axis] // patches
        picture = picture.narrow(axis, cut, picture.shape[axis] - 2 * cut)
    return picture
