"""Pictures and masks of patches: shading patches, averaging them, the lines around them.

Knows nothing about ledgers or figures.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float
from matplotlib.colors import to_rgb

Picture = Float[np.ndarray, "height width 3"]
Mask = Bool[np.ndarray, "rows columns"]


def outline(mask: Mask) -> Float[np.ndarray, "edges ends xy"]:
    """The sides of patches between the mask and what is not in it.

    In patches from the upper left corner, each as its two ends.
    """
    framed = np.pad(mask, 1)
    y, x = np.nonzero(framed[:-1, 1:-1] != framed[1:, 1:-1])
    flat = np.stack([np.stack([x, y], -1), np.stack([x + 1, y], -1)], 1)
    y, x = np.nonzero(framed[1:-1, :-1] != framed[1:-1, 1:])
    upright = np.stack([np.stack([x, y], -1), np.stack([x, y + 1], -1)], 1)
    return np.concatenate([flat, upright]).astype(float).reshape(-1, 2, 2)


def mask_of(patches: Sequence[int], grid: tuple[int, int]) -> Mask:
    """The mask of some patches, by raster index."""
    mask: Mask = np.zeros(grid[0] * grid[1], dtype=bool)
    mask[list(patches)] = True
    return mask.reshape(grid)


def averaged(picture: Picture, groups: Sequence[Mask]) -> Picture:
    """Each group of patches in its own mean colour: what is left to see of it."""
    out = picture.copy()
    for group in groups:
        where = spread(group, picture)
        out[where] = 0.35 * picture[where] + 0.65 * picture[where].mean(0)
    return out


def shade(picture: Picture, mask: Mask, colour: str, share: float) -> Picture:
    """Lay a colour over the patches of a mask."""
    return blend(picture, colour, share * mask)


def blend(picture: Picture, colour: str, share: Float[np.ndarray, "rows columns"]) -> Picture:
    """Lay a colour over the picture's greys, per patch with this share."""
    over = np.array(to_rgb(colour))
    grey = picture @ np.array([0.299, 0.587, 0.114])
    share = spread(share, picture)[..., None]
    base = np.where(share > 0, grey[..., None], picture)
    return (1 - share) * base + share * over


def spread(values: np.ndarray, picture: Picture) -> np.ndarray:
    """A number per patch to a number per pixel."""
    rows, columns = (
        np.arange(n) * m // n for n, m in zip(picture.shape[:2], values.shape, strict=True)
    )
    return values[rows[:, None], columns]
