"""Random dropping on a given schedule: the control with the same tokens in every layer."""

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
    """Keep a uniform draw of what is alive, down to what another method had in the next layer.

    After layer l of prompt i:  keep n_i[l + 1] of the tokens alive, each set equally likely.

    Source: control, ours. What is left between it and the other method is which tokens were
        chosen, not how many, nor where. A constant schedule is :class:`Random` at that count;
        what a draw depends on is said there.

    Attributes:
        schedules: Per prompt of the batch, the vision tokens that enter each layer.
        seed: Which draw.
    """

    schedules: Sequence[Sequence[Count]]
    seed: int = 0

    def __post_init__(self) -> None:
        require_fields(self)
        schedules = self.schedules
        if not schedules or not schedules[0] or len({len(counts) for counts in schedules}) > 1:
            raise ValueError(
                "ScheduledRandom.schedules must be one list a prompt, all with as many counts as "
                f"there are layers, got {[len(counts) for counts in schedules]} counts"
            )
        for prompt, counts in enumerate(schedules):
            if any(later > earlier for earlier, later in pairwise(counts)):
                raise ValueError(
                    f"ScheduledRandom.schedules[{prompt}] must never grow, got {list(counts)}"
                )

    @property
    def layers(self) -> tuple[int, ...]:
        """The input, where only the view knows how many came, and wherever some count falls."""
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
                f"a prompt {view.prompt_index}"
            )
        keep = self.schedules[view.prompt_index][view.layer + 1]
        # the head of a random order is a uniform draw of what is alive, however often it is cut;
        # the key of a draw hashes the picture, so one serves all layers
        score = view.cached("scheduled_random", lambda: self._drawn(view))
        return view.top(score[view.positions], keep)

    def _drawn(self, view: PrefillView) -> Float[Tensor, " prompt"]:
        """A random score for each slot that holds a vision token at the input."""
        drawn = torch.rand(len(view), generator=view.generator(self.seed)).to(view.inputs.device)
        return torch.zeros(len(view.inputs), device=drawn.device).index_copy_(
            0, view.positions, drawn
        )
