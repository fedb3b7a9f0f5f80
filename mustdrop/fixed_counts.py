"""Strategies that keep a fixed number of tokens, given as a count or as the budget it follows from.

Knows nothing about how the tokens are chosen.
"""

from collections.abc import Sequence
from dataclasses import replace

from mustdrop.budget import Budget, keep_for, part_of
from mustdrop.strategy import Keep, PrefillStrategy, PrefillView, Same, VisionStrategy, VisionView


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
        tokens = len(view.patch_index)
        if isinstance(self.keep, Budget):
            return max(part_of(self.keep, tokens, *view.span), self.fewest)
        return min(self.keep, tokens)

    def plan(self: Same, entered: int, blocks: int) -> Same:
        if not isinstance(self.keep, Budget):
            return self
        return replace(self, keep=max(keep_for(self.keep, entered), self.fewest))

    def left(self, entered: int) -> int | None:
        return min(self.keep, entered) if isinstance(self.keep, int) else None


class KeepPerPrompt(PrefillStrategy):
    """Stage 2 that acts once, with a fixed number of tokens per prompt.

    Attributes:
        keep: Number of tokens kept per prompt, or the budget that it follows from.
        layer: Layer after which tokens are dropped; -1: before the language model.
    """

    keep: Keep
    layer: int

    @property
    def layers(self) -> tuple[int]:
        return (self.layer,)

    def kept(self, view: PrefillView) -> int:
        """Number of tokens kept of a prompt, all of them if it has fewer."""
        return min(keep_for(self.keep, view.entered, view.depth, self.layer), len(view))

    def plan(self: Same, entered: int, depth: int) -> Same:
        keep = keep_for(self.keep, entered, depth, self.layer)
        return replace(self, keep=keep)

    def left(self, entered: int) -> Sequence[int] | None:
        return None if isinstance(self.keep, Budget) else [min(self.keep, entered)]
