"""Uniform grid at a count a prompt: the control that looks at nothing, where counts differ."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from mustdrop.prefill.uniform_grid import spread
from mustdrop.reduction import Reduction
from mustdrop.strategy import Count, PrefillStrategy, PrefillView, require_fields


@final
@dataclass(frozen=True)
class ScheduledGrid(PrefillStrategy):
    """:class:`UniformGrid` at the language model's input, with a count for each prompt.

    Source: control, ours.

    Attributes:
        keeps: Vision tokens kept of each prompt of the batch.
    """

    keeps: Sequence[Count]
    layers = (-1,)

    def __post_init__(self) -> None:
        require_fields(self)

    def reduce(self, view: PrefillView) -> Reduction:
        if view.number >= len(self.keeps):
            raise ValueError(
                f"keeps tells of {len(self.keeps)} prompts, but prompt {view.number} is here"
            )
        return spread(view, self.keeps[view.number])
