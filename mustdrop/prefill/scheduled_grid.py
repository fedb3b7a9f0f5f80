"""Uniform grid at a count a prompt: the control that looks at nothing, where counts differ."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from mustdrop.prefill.uniform_grid import spread
from mustdrop.reduction import Reduction
from mustdrop.strategy import PrefillStrategy, PrefillView, require_counts


@final
@dataclass(frozen=True)
class ScheduledGrid(PrefillStrategy):
    """:class:`UniformGrid` at the language model's input, with a count for each prompt.

    Source: control, ours.

    Attributes:
        keeps: Vision tokens kept of each prompt of the batch.
    """

    keeps: Sequence[int]
    layers = (-1,)

    def __post_init__(self) -> None:
        object.__setattr__(self, "keeps", tuple(self.keeps))
        require_counts(**{f"keeps[{prompt}]": keep for prompt, keep in enumerate(self.keeps)})

    def reduce(self, view: PrefillView) -> Reduction:
        if view.number >= len(self.keeps):
            raise ValueError(
                f"keeps tells of {len(self.keeps)} prompts, but prompt {view.number} is here"
            )
        return spread(view, self.keeps[view.number])
