"""Counted: a method with thresholds that keeps given numbers of tokens, for random weights.

Random weights make thresholds meaningless, but not the work of a method: its scores, its selection
and its waits for the device remain. Only the number of kept tokens is replaced.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from mustdrop.reduction import Decision, PendingReduction, Reduction, settled
from mustdrop.strategy import Count, PrefillStrategy, PrefillView
from mustdrop.thresholds import ThresholdPrefill


@final
@dataclass(frozen=True)
class Counted(PrefillStrategy):
    """Strategy with thresholds that keeps a given number of tokens, those of the highest scores.

    The method makes its whole decision; then the number of kept tokens is replaced. This needs
    another sort, so that a time measured with it is an upper bound of the method's time.

    Attributes:
        method: Strategy that decides.
        after: Number of vision tokens left after each of the method's layers.
    """

    method: ThresholdPrefill
    after: Sequence[Count]

    def __post_init__(self) -> None:
        if len(self.after) != len(self.method.layers):
            raise ValueError(
                f"Counted.after must have one count per layer of {list(self.method.layers)}, got "
                f"{list(self.after)}"
            )

    @property
    def layers(self) -> tuple[int, ...]:
        return tuple(self.method.layers)

    def reduce(self, view: PrefillView) -> Reduction:
        return settled([self.begin(view)])[0]

    def begin(self, view: PrefillView) -> Decision:
        observed = self.method.observe(view)
        stays = self.method.stays(observed, view.protected)
        kept = self.after[self.layers.index(view.layer)]
        return PendingReduction(stays.sum()[None], lambda numbers: view.top(observed[0], kept))
