"""Keys of random draws: what an image or a prompt is, whatever its batch."""

from collections.abc import Callable
from functools import cache

import torch
from jaxtyping import Int
from torch import Tensor

from mustdrop.engine.layout import Prompt
from mustdrop.functional import stable_seed


def image_key(pixels: Tensor | None, image: int) -> int:
    """Key of an image of the batch, by its pixels rounded to bfloat16.

    Pixels that a caller cast to bfloat16 so have the key of the float32 ones that the processor
    made. Pixels cast to float16 have another: it is no refinement of bfloat16, so no rounding
    serves both.

    Raises:
        ValueError: If no pixels were given.
    """
    if pixels is None:
        raise ValueError("random draws are keyed by the image, but no pixel_values were seen")
    values = pixels.reshape(-1, *pixels.shape[-3:])[image]
    return stable_seed(values.bfloat16().cpu().view(torch.int16).numpy().tobytes())


def prompt_keys(
    prompts: list[Prompt], pads: list[int], ids: Int[Tensor, "batch seq"], pixels: Tensor | None
) -> Callable[[int], int]:
    """Key of a prompt's text and images, by its number; neighbours and padding do not enter."""

    @cache  # it reads the pixels, and every layer may ask for it
    def key(number: int) -> int:
        first = sum(prompt.images for prompt in prompts[:number])
        images = [image_key(pixels, first + image) for image in range(prompts[number].images)]
        return stable_seed(ids[number, pads[number] :].tolist(), images)

    return key
