"""Fate of each patch of an image: merged, key, dropped after a layer, resident in the cache.

It is computed from the ledger alone. A patch lives as long as a token that carries it. Knows
nothing about pictures.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from torch import Tensor

from mustdrop.ledger import TokenLedger


@dataclass(frozen=True, eq=False)
class Drop:
    """Drop of the image's tokens after one layer, or after several neighbouring layers joined.

    Attributes:
        first: First layer after which tokens are dropped; -1: before layer 0.
        last: Last such layer.
        before: Number of tokens before the drop.
        left: Number of tokens after the drop.
        dropped: Patches whose last token is dropped here.
        alive: Patches that some token still carries after the drop.
    """

    first: int
    last: int
    before: int
    left: int
    dropped: Bool[np.ndarray, "rows columns"]
    alive: Bool[np.ndarray, "rows columns"]


@dataclass(frozen=True, eq=False)
class Fates:
    """Fate of all patches of one image.

    Attributes:
        grid: Numbers of rows and columns of patches.
        tokens: Number of tokens that the encoder passes to the language model.
        arrived: Patches that some of these tokens carry.
        merged: Raster indices of the patches of each token that carries more than one.
        key: Patches that key tokens carry.
        drops: Drops in the order of the layers.
        resident: Share of the layers whose KV cache holds the patch while decoding.
        resident_tokens: Number of tokens of the image in a layer's cache, mean over layers.
        end: Patches alive in the last layer.
    """

    grid: tuple[int, int]
    tokens: int
    arrived: Bool[np.ndarray, "rows columns"]
    merged: tuple[tuple[int, ...], ...]
    key: Bool[np.ndarray, "rows columns"]
    drops: tuple[Drop, ...]
    resident: Float[np.ndarray, "rows columns"]
    resident_tokens: float
    end: Bool[np.ndarray, "rows columns"]


def fates(ledger: TokenLedger, image: int = 0, most_drops: int = 8) -> Fates:
    """Follow the patches of one image of a prompt.

    Args:
        ledger: Ledger of the prompt.
        image: Index of the image (crop, frame) in the prompt.
        most_drops: Largest number of drops in the result; neighbouring drops are joined.

    Raises:
        ValueError: If the ledger has no prefill or no such image.
    """
    return joint_fates(ledger, [image], most_drops)[0]


def joint_fates(ledger: TokenLedger, images: Sequence[int], most_drops: int = 8) -> list[Fates]:
    """Follow the patches of several images of a prompt, such as the frames of a video.

    All of them have the same drops, also an image of which a drop takes no token.

    Args:
        ledger: Ledger of the prompt.
        images: Indices of the images (crops, frames) in the prompt.
        most_drops: Largest number of drops in the result; neighbouring drops are joined.

    Raises:
        ValueError: If the ledger has no prefill or no such image.
    """
    if not ledger.alive:
        raise ValueError("the ledger is empty: run a prefill with this dropper attached first")
    if most_drops < 1:
        raise ValueError(f"most_drops must be 1 or more, got {most_drops}")
    parts = [ledger.image_tokens(image) for image in images]
    slots = np.concatenate([to_numpy(part[1]) for part in parts])
    counts = [len(slots)]
    counts += [
        int(np.isin(slots, to_numpy(ledger.alive[layer])).sum()) for layer in range(ledger.depth)
    ]
    leaving = [layer - 1 for layer in range(ledger.depth) if counts[layer] != counts[layer + 1]]
    spans = [
        (int(chunk[0]), int(chunk[-1]))
        for chunk in np.array_split(leaving, min(most_drops, len(leaving)) or 1)
        if len(chunk)
    ]
    return [_fates(ledger, *part, spans) for part in parts]


def _fates(
    ledger: TokenLedger,
    shape: tuple[int, int],
    slot_index: Tensor,
    cells_of_tokens: Tensor,
    spans: Sequence[tuple[int, int]],
) -> Fates:
    """Fates of the patches of one image, with drops after these first and last layers."""
    slots, carries = to_numpy(slot_index), to_numpy(cells_of_tokens)

    def patches(tokens: Bool[np.ndarray, " tokens"]) -> Bool[np.ndarray, "rows columns"]:
        return np.asarray(carries[tokens].any(0)).reshape(shape)

    present = [np.isin(slots, to_numpy(ledger.alive[layer])) for layer in range(ledger.depth)]
    cached = [np.isin(slots, to_numpy(ledger.cached[layer])) for layer in sorted(ledger.cached)]
    states = [np.ones(len(slots), dtype=bool), *present]
    drops = []
    for first, last in spans:
        before, after = states[first + 1], states[last + 2]
        drops.append(
            Drop(
                first=first,
                last=last,
                before=int(before.sum()),
                left=int(after.sum()),
                dropped=patches(before) & ~patches(after),
                alive=patches(after),
            )
        )
    none = np.zeros(shape, dtype=float)
    return Fates(
        grid=shape,
        tokens=len(slots),
        arrived=patches(states[0]),
        merged=tuple(
            tuple(int(patch) for patch in np.flatnonzero(row)) for row in carries if row.sum() > 1
        ),
        key=patches(to_numpy(ledger.protected)[slots]),
        drops=tuple(drops),
        resident=sum((patches(tokens).astype(float) for tokens in cached), none)
        / max(len(cached), 1),
        resident_tokens=float(np.mean([tokens.sum() for tokens in cached])) if cached else 0.0,
        end=patches(present[-1]),
    )


def to_numpy(tensor: Tensor) -> np.ndarray:
    """NumPy copy of a tensor from any device."""
    return tensor.detach().cpu().numpy()
