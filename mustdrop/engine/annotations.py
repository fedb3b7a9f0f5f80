"""Annotations: patches of each image that are marked by name, from outside the model."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from mustdrop.strategy import VisionStrategy

Annotations = Sequence[Mapping[str, Tensor | np.ndarray]]  # one mapping per image


def require_annotations(vision: VisionStrategy | None, annotations: Annotations | None) -> None:
    """Check that annotations are given if a strategy needs them.

    Raises:
        ValueError: With the names of the annotations.
    """
    if vision is not None and vision.annotations and annotations is None:
        names = ", ".join(vision.annotations)
        raise ValueError(
            f"{type(vision).__name__} needs the annotation {names} of every image, as in "
            f"attach(model, annotations=[{{{vision.annotations[0]!r}: patches}}]); PocketVQA has "
            "annotations, real benchmarks do not"
        )


def annotated(
    annotations: Annotations, image: int, name: str, grid: tuple[int, int]
) -> Bool[Tensor, " patches"]:
    """Whether each patch of one image is marked by ``name``, in raster order.

    Raises:
        ValueError: If the image has no annotations, not this one, or not on the image's grid.
    """
    if image >= len(annotations):
        raise ValueError(
            f"annotations were given for {len(annotations)} images, but image {image} was encoded"
        )
    if name not in annotations[image]:
        names = ", ".join(annotations[image]) or "none"
        raise ValueError(f"image {image} needs the annotation {name}, got: {names}")
    marked = torch.as_tensor(annotations[image][name])
    if marked.dtype != torch.bool or tuple(marked.shape) != grid:
        raise ValueError(
            f"{name} must be a boolean {grid[0]} x {grid[1]}, got {marked.dtype} of "
            f"{' x '.join(map(str, marked.shape))}"
        )
    return marked.flatten()
