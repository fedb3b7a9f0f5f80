"""PruMerge+: PruMerge with the tokens of an even grid as additional centres."""

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mustdrop.fixed_counts import KeepPerImage
from mustdrop.functional import complement, outliers, ranked
from mustdrop.reduction import Reduction
from mustdrop.strategy import Count, ModelFacts, VisionView, require_fields
from mustdrop.vision.prumerge import Kept, Variant, merged, score_and_keys


def grid_step(standing_out: int, tokens: int) -> int:
    """Step of the even grid, a third of one over the share of tokens that stand out.

    The step would be 0, which is not valid, if more than a third stood out; by the quartile rule at
    most a quarter can.
    """
    return tokens // max(standing_out, 1) // 3


@final
@dataclass(frozen=True)
class PruMergePlus(KeepPerImage):
    """Keep tokens that stand out in [CLS] attention and an even grid; merge similar ones into them.

    Source: LLaVA-PruMerge, arXiv:2403.15388 (PruMerge+).
    Differs from the authors' code (42Shawn/LLaVA-PruMerge at 097c0411), with ``variant="code"``:
        nothing where ``keep`` is None and the code runs, for one image; the last token is never in
        the grid, as in the code. Where no token stands out, the code divides by zero; here the step
        is that of one token. Where all are kept, the code adds a token of zeros; here there is
        none. Where more than a third stand out, the code's step is 0 and it fails; here it is 1,
        but by the quartile rule at most a quarter stand out. A fixed ``keep`` is ours: the code's,
        for training, lists patches twice.

    Attributes:
        keep: Number of tokens kept per image, remainder included: half of the others by attention,
            half evenly spaced among the rest. None keeps all that stand out and every n-th token,
            n = floor(1 / their share) / 3; this keeps all where more than a sixth stand out.
        block: Encoder block whose keys and attention are read.
        neighbours: Number of tokens merged into each kept token.
        variant: Weights and attention; see :class:`~mustdrop.vision.prumerge.PruMerge`.
    """

    keep: Kept | None = None
    block: int = -1
    neighbours: Count = 32
    variant: Variant = "code"
    places = ("features",)
    fewest = 1

    def __post_init__(self) -> None:
        require_fields(self)

    @property
    def normalised(self) -> bool:
        return self.variant == "paper"

    @property
    def cls_attention_blocks(self) -> tuple[int, ...]:
        return (self.block,) if self.variant == "paper" else ()

    @property
    def query_key_blocks(self) -> tuple[int]:
        return (self.block,)

    def check(self, facts: ModelFacts) -> None:
        facts.require_cls(self.block)

    def reduce(self, view: VisionView) -> Reduction:
        score, keys = score_and_keys(view, self.block, self.variant)
        if self.keep is None:
            centres = self._adaptive(score)
        else:
            centres = self._fixed(score, self.kept(view))
        return merged(view, score, keys, centres, self.neighbours, self.variant)

    def _adaptive(self, score: Float[Tensor, " tokens"]) -> Int[Tensor, " centres"]:
        tokens = len(score)
        standing_out = int(outliers(score).sum())
        chosen = ranked(score)[:standing_out]
        rest = complement(chosen, tokens)
        step = max(grid_step(standing_out, tokens), 1)
        on_grid = (rest % step == 0) & (rest < tokens - 1)
        return torch.cat([chosen, rest[on_grid]])

    def _fixed(self, score: Float[Tensor, " tokens"], keep: int) -> Int[Tensor, " centres"]:
        tokens = len(score)
        centres = tokens if keep == tokens else keep - 1
        spaced = centres // 2
        chosen = ranked(score)[: centres - spaced]
        rest = complement(chosen, tokens)
        index = (2 * torch.arange(spaced, device=rest.device) + 1) * len(rest) // (2 * spaced or 1)
        return torch.cat([chosen, rest[index]])
