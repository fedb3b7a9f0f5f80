"""Random: keep vision tokens drawn at random (the control that every method must beat)."""

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from mustdrop.fixed_counts import TopK
from mustdrop.strategy import PrefillView


@final
@dataclass(frozen=True)
class Random(TopK):
    """Keep vision tokens drawn uniformly at random, the same in every run and batch of a sample.

    The draw depends only on seed, prompt, image and layer. The image enters by its pixels rounded
    to bfloat16: the processor's float32 pixels and pixels cast to bfloat16 give the same draw,
    whatever the model's dtype. Pixels cast to float16 give another.

    Source: control, ours.

    Attributes:
        keep: Number of vision tokens kept per prompt.
        layer: Layer after which tokens are dropped; -1: before the language model.
        seed: Seed of the draw.
    """

    seed: int = 0

    def score(self, view: PrefillView) -> Float[Tensor, " vision"]:
        drawn = torch.rand(len(view), generator=view.generator(self.seed))
        return drawn.to(view.protected.device, non_blocking=True)
