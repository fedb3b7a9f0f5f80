"""Random: keep vision tokens drawn at random (the control that every method must beat)."""

from dataclasses import dataclass
from typing import final

import torch

from mustdrop.fixed_counts import KeepPerPrompt
from mustdrop.reduction import Reduction
from mustdrop.strategy import Keep, PrefillView, require_fields


@final
@dataclass(frozen=True)
class Random(KeepPerPrompt):
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

    keep: Keep
    layer: int = -1
    seed: int = 0

    def __post_init__(self) -> None:
        require_fields(self)

    def reduce(self, view: PrefillView) -> Reduction:
        score = torch.rand(len(view), generator=view.generator(self.seed)).to(view.protected.device)
        return view.top(score, self.kept(view))
