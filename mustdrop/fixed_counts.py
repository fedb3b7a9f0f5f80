"""Strategies that keep a fixed number of tokens, given as a count or as the budget it follows from.

Knows nothing about how the tokens are chosen.
"""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace

from jaxtyping import Float
from torch import Tensor

from mustdrop.budget import Budget, keep_for, part_of
from mustdrop.reduction import Reduction
from mustdrop.strategy import (
    Keep,
    PrefillStrategy,
    PrefillView,
    Same,
    VisionStrategy,
    VisionView,
    require_fields,
)


class KeepPerImage(VisionStrategy):
    """Stage 1 with a fixed number of tokens per image.

    Attributes:
        keep: Number of tokens kept per image, or the budget of a prompt, whose images share it;
            None if the image decides.
        fewest: Least number of tokens that the strategy can keep.
    """

    keep: Keep | None
    fewest: int = 0

    def kept(self, view: VisionView) -> int:
        """Number of tokens kept of an image, all of them if it has fewer."""
        assert self.keep is not None
        if isinstance(self.keep, Budget):
            return max(part_of(self.keep, *view.span), self.fewest)
        return min(self.keep, len(view.cells))

    def plan(self: Same, entered: int, blocks: int) -> Same:
        if not isinstance(self.keep, Budget):
            return self
        return replace(self, keep=max(keep_for(self.keep, entered), self.fewest))

    def left(self, entered: int) -> int | None:
        return min(self.keep, entered) if isinstance(self.keep, int) else None


@dataclass(frozen=True)
class KeepPerPrompt(PrefillStrategy):
    """Stage 2 with a fixed number of tokens per prompt, after one layer.

    Attributes:
        keep: Number of tokens kept per prompt, or the budget that it follows from.
        layer: Layer after which tokens are dropped; -1: before the language model.
    """

    keep: Keep
    layer: int = -1

    def __post_init__(self) -> None:
        require_fields(self)

    @property
    def layers(self) -> tuple[int]:
        return (self.layer,)

    def kept(self, view: PrefillView) -> int:
        """Number of tokens kept of a prompt, all of them if it has fewer."""
        return min(keep_for(self.keep, view.entered_cells, view.depth, self.layer), len(view))

    def plan(self: Same, entered: int, depth: int) -> Same:
        return replace(self, keep=keep_for(self.keep, entered, depth, self.layer))

    def left(self, entered: int) -> Sequence[int] | None:
        return None if isinstance(self.keep, Budget) else [min(self.keep, entered)]


@dataclass(frozen=True)
class TopK(KeepPerPrompt):
    """Base of the prefill strategies that keep the tokens of highest score, after one layer."""

    def reduce(self, view: PrefillView) -> Reduction:
        return view.top(self.score(view), self.kept(view))

    @abstractmethod
    def score(self, view: PrefillView) -> Float[Tensor, " vision"]:
        """Score of each vision token of one prompt."""
