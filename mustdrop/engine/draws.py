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
    return stable_seed(_rounded(pixels).cpu().numpy().tobytes())


def prompt_keys(
    prompts: list[Prompt], pads: list[int], ids: Int[Tensor, "batch seq"]
) -> Callable[[int], int]:
    """Function from a prompt's index to the key of its text and images; ignores its batch.

    Args:
        prompts: Prompts of the batch.
        pads: Padding in front of each prompt.
        ids: Token ids, on the host.
    """

    @cache  # the pixels of the batch are read together, with one wait for the device
    def images() -> list[int]:
        parts = [_rounded(pixels).flatten() for prompt in prompts for pixels in prompt.shown.pixels]
        sizes = [len(part) for part in parts]
        host = torch.cat(parts).cpu().split(sizes) if parts else ()
        return [stable_seed(part.numpy().tobytes()) for part in host]

    @cache
    def key(number: int) -> int:
        first, end = (
            sum(len(prompt.shown.grids) for prompt in prompts[:stop])
            for stop in (number, number + 1)
        )
        return stable_seed(ids[number, pads[number] :].tolist(), images()[first:end])

    return key


def _rounded(pixels: Tensor) -> Tensor:
    """Pixels rounded to bfloat16, as whole numbers, since NumPy has no bfloat16."""
    return pixels.bfloat16().view(torch.int16)
