"""Keys of random draws: they depend on an image or a prompt, and not on its batch."""

from collections.abc import Callable
from functools import cache

import torch
from jaxtyping import Int
from torch import Tensor

from mustdrop.engine.layout import Prompt
from mustdrop.functional import stable_seed


def image_key(pixels: Tensor) -> int:
    """Key of an image, from its pixels rounded to bfloat16.

    Pixels that a caller cast to bfloat16 have the same key as the float32 pixels of the processor.
    Pixels cast to float16 have another key: float16 cannot hold all bfloat16 numbers, so no
    rounding fits both.
    """
    return stable_seed(pixels.bfloat16().cpu().view(torch.int16).numpy().tobytes())


def prompt_keys(
    prompts: list[Prompt], pads: list[int], ids: Int[Tensor, "batch seq"]
) -> Callable[[int], int]:
    """Function from a prompt's index to the key of its text and images; ignores its batch."""

    @cache  # the key reads the pixels, and every layer may use it
    def key(number: int) -> int:
        images = [image_key(pixels) for pixels in prompts[number].shown.pixels]
        return stable_seed(ids[number, pads[number] :].tolist(), images)

    return key
