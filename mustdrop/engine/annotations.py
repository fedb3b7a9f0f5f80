"""What is known of each image from outside, beside the model: marked patches, by name."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from mustdrop.strategy import VisionStrategy

Annotations = Sequence[Mapping[str, Tensor | np.ndarray]]  # one mapping an image


def require_annotations(vision: VisionStrategy | None, known: Annotations | None) -> None:
    """Check that a strategy which has to be told something is told anything.

    Raises:
        ValueError: With what it needs.
    """
    if vision is not None and vision.annotations and known is None:
        names = ", ".join(vision.annotations)
        raise ValueError(
            f"{type(vision).__name__} has to be told {names} of every image, as in "
            f"attach(model, annotations=[{{{vision.annotations[0]!r}: patches}}]); PocketVQA knows "
            "them, real benchmarks do not"
        )


def annotated(
    known: Annotations, image: int, name: str, grid: tuple[int, int]
) -> Bool[Tensor, " patches"]:
    """The patches of one image that are marked by a name, in raster order.

    Raises:
        ValueError: If nothing was told of the image, not this, or not on the image's grid.
    """
    if image >= len(known):
        raise ValueError(f"known tells of {len(known)} images, but image {image} was encoded")
    if name not in known[image]:
        names = ", ".join(known[image]) or "nothing"
        raise ValueError(f"{name} has to be known of image {image}; what is told of it: {names}")
    marked = torch.as_tensor(known[image][name])
    if marked.dtype != torch.bool or tuple(marked.shape) != grid:
        raise ValueError(
            f"{name} must be a boolean {grid[0]} x {grid[1]}, got {marked.dtype} of "
            f"{' x '.join(map(str, marked.shape))}"
        )
    return marked.flatten()
