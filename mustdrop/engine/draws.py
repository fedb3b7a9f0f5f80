"""Keys of random draws: they depend on an image or a prompt, and not on its batch."""

from collections.abc import Callable
from functools import cache

import torch
from jaxtyping import Int
from torch import Tensor

from mustdrop.engine.layout import Prompt
from mustdrop.functional import stable_seed


def image_key(pixels: Tensor | None, image: int) -> int:
    """Key of an image of the batch, from its pixels rounded to bfloat16.

    Pixels that a caller cast to bfloat16 have the same key as the float32 pixels of the processor.
    Pixels cast to float16 have another key: float16 cannot hold all bfloat16 numbers, so no
    rounding fits both.

    Raises:
        ValueError: If no pixels were given.
    """
    if pixels is None:
        raise ValueError("random draws depend on the image, but no pixel_values were given")
    values = pixels.reshape(-1, *pixels.shape[-3:])[image]
    return stable_seed(values.bfloat16().cpu().view(torch.int16).numpy().tobytes())


def prompt_keys(
    prompts: list[Prompt], pads: list[int], ids: Int[Tensor, "batch seq"], pixels: Tensor | None
) -> Callable[[int], int]:
    """Function from a prompt's index to the key of its text and images; ignores its batch."""

    @cache  # the key reads the pixels, and every layer may use it
    def key(number: int) -> int:
        first = sum(prompt.images for prompt in prompts[:number])
        images = [image_key(pixels, first + image) for image in range(prompts[number].images)]
        return stable_seed(ids[number, pads[number] :].tolist(), images)

    return key
