"""ScheduledGrid: keep evenly spaced vision tokens, with a count for each prompt (a control)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from mustdrop.prefill.uniform_grid import evenness
from mustdrop.reduction import Reduction
from mustdrop.strategy import Count, PrefillStrategy, PrefillView, require_fields


@final
@dataclass(frozen=True)
class ScheduledGrid(PrefillStrategy):
    """Keep evenly spaced vision tokens at the model's input, with a count for each prompt.

    The choice is that of :class:`UniformGrid`.

    Source: control, ours.

    Attributes:
        keep_counts: Number of vision tokens kept for each prompt of the batch.
    """

    keep_counts: Sequence[Count]
    layers = (-1,)

    def __post_init__(self) -> None:
        require_fields(self)

    def reduce(self, view: PrefillView) -> Reduction:
        if view.prompt_index >= len(self.keep_counts):
            raise ValueError(
                f"keep_counts has counts for {len(self.keep_counts)} prompts, but the batch has "
                f"a prompt of index {view.prompt_index}"
            )
        keep = self.keep_counts[view.prompt_index]
        return view.top(evenness(view, keep), keep)
