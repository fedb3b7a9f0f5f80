"""ScheduledRandom: keep random vision tokens, with given counts for each layer (a control)."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from mustdrop.reduction import Reduction
from mustdrop.strategy import Count, ModelFacts, PrefillStrategy, PrefillView, require_fields


@final
@dataclass(frozen=True)
class ScheduledRandom(PrefillStrategy):
    """Keep random vision tokens, in each layer as many as another method had.

    After layer l of prompt i, n_i[l + 1] of the remaining tokens are kept, each set equally likely.
    The control and the other method then differ only in which tokens they keep, not in how many or
    in which layers. A constant schedule equals :class:`Random` at that count; its docstring says
    what a draw depends on.

    Source: control, ours.

    Attributes:
        schedules: Number of vision tokens that enter each layer, one list per prompt of the batch.
        seed: Seed of the draw.
    """

    schedules: Sequence[Sequence[Count]]
    seed: int = 0

    def __post_init__(self) -> None:
        require_fields(self)
        schedules = self.schedules
        if not schedules or not schedules[0] or len({len(counts) for counts in schedules}) > 1:
            raise ValueError(
                "ScheduledRandom.schedules must have one list per prompt, each with one count per "
                f"layer, got {[len(counts) for counts in schedules]} counts"
            )
        for prompt, counts in enumerate(schedules):
            if any(later > earlier for earlier, later in pairwise(counts)):
                raise ValueError(
                    f"ScheduledRandom.schedules[{prompt}] must never grow, got {list(counts)}"
                )

    @property
    def layers(self) -> tuple[int, ...]:
        """The input (-1) and every layer after which some count falls.

        The input is always included, as the number of tokens there is known to the view only.
        """
        falls = {
            layer
            for counts in self.schedules
            for layer in range(len(counts) - 1)
            if counts[layer + 1] < counts[layer]
        }
        return (-1, *sorted(falls))

    def check(self, facts: ModelFacts) -> None:
        if len(self.schedules[0]) != facts.depth:
            raise ValueError(
                f"schedules must have a count for each of {facts.depth} layers, got "
                f"{len(self.schedules[0])}"
            )

    def reduce(self, view: PrefillView) -> Reduction:
        if view.prompt_index >= len(self.schedules):
            raise ValueError(
                f"schedules has counts for {len(self.schedules)} prompts, but the batch has "
                f"a prompt of index {view.prompt_index}"
            )
        keep = self.schedules[view.prompt_index][view.layer + 1]
        # The first tokens of a random order are a uniform draw at every length, so one order serves
        # all layers. One draw is also cheaper, because its key hashes the pixels.
        score = view.cached("scheduled_random", lambda: self._random_scores(view))
        return view.top(score[view.positions], keep)

    def _random_scores(self, view: PrefillView) -> Float[Tensor, " prompt"]:
        """A random score for each slot that holds a vision token at the input."""
        drawn = torch.rand(len(view), generator=view.generator(self.seed)).to(
            view.inputs.device, non_blocking=True
        )
        return torch.zeros(len(view.inputs), device=drawn.device).index_copy_(
            0, view.positions, drawn
        )
