"""Pictures and masks of patches: shade, average and outline patches.

Knows nothing about ledgers or figures.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float
from matplotlib.colors import to_rgb

Picture = Float[np.ndarray, "height width 3"]
Mask = Bool[np.ndarray, "rows columns"]


def outline(mask: Mask) -> Float[np.ndarray, "edges ends xy"]:
    """Edges between patches in the mask and patches outside it.

    Each edge is given by its two ends, in patches from the upper left corner.
    """
    framed = np.pad(mask, 1)
    y, x = np.nonzero(framed[:-1, 1:-1] != framed[1:, 1:-1])
    flat = np.stack([np.stack([x, y], -1), np.stack([x + 1, y], -1)], 1)
    y, x = np.nonzero(framed[1:-1, :-1] != framed[1:-1, 1:])
    upright = np.stack([np.stack([x, y], -1), np.stack([x, y + 1], -1)], 1)
    return np.concatenate([flat, upright]).astype(float).reshape(-1, 2, 2)


def mask_of(patches: Sequence[int], grid: tuple[int, int]) -> Mask:
    """Mask of the patches with these raster indices."""
    mask: Mask = np.zeros(grid[0] * grid[1], dtype=bool)
    mask[list(patches)] = True
    return mask.reshape(grid)


def averaged(picture: Picture, groups: Sequence[Mask]) -> Picture:
    """Blend each group of patches with its mean colour, to show what merging leaves."""
    out = picture.copy()
    for group in groups:
        pixels = spread(group, picture)
        out[pixels] = 0.35 * picture[pixels] + 0.65 * picture[pixels].mean(0)
    return out


def shade(picture: Picture, mask: Mask, colour: str, share: float) -> Picture:
    """Blend a colour over the patches of a mask."""
    return blend(picture, colour, share * mask)


def blend(picture: Picture, colour: str, share: Float[np.ndarray, "rows columns"]) -> Picture:
    """Blend a colour over the grey values of each patch with a share above 0."""
    over = np.array(to_rgb(colour))
    grey = picture @ np.array([0.299, 0.587, 0.114])
    share = spread(share, picture)[..., None]
    base = np.where(share > 0, grey[..., None], picture)
    return (1 - share) * base + share * over


def spread(values: np.ndarray, picture: Picture) -> np.ndarray:
    """Repeat the value of each patch for its pixels."""
    rows, columns = (
        np.arange(n) * m // n for n, m in zip(picture.shape[:2], values.shape, strict=True)
    )
    return values[rows[:, None], columns]
