"""Counts of a method on random weights: its thresholds are calibrated, or its counts are given.

Thresholds are searched on the prompts that are timed. With a schedule the method computes its
scores and its selection, and then the number of kept tokens is replaced.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from mustdrop.budget import Budget
from mustdrop.calibration.observe import observe
from mustdrop.calibration.search import OutOfReach, SearchResult
from mustdrop.calibration.threshold import executed, threshold, with_field
from mustdrop.dropper import TokenDropper
from mustdrop.profiling.counted import Counted
from mustdrop.thresholds import ThresholdPrefill
from mustdrop.vision.local_merge import LocalMerge

MERGED = 440 / 576  # share of the tokens that MustDrop's first stage leaves (its Table 3)
TOLERANCE = 0.01


@dataclass(frozen=True)
class ThresholdSearch:
    """Search on one batch of prompts.

    Attributes:
        model: Model that a dropper can be attached to.
        inputs: Prompts of the batch.
    """

    model: Any
    inputs: Mapping[str, Any]

    def merging(self, dropper: TokenDropper, share: float) -> TokenDropper:
        """Find the similarity at which windows leave a share of the tokens.

        Where no similarity leaves the share, the nearest one is taken: merging is then all or
        nothing, as in pictures of one colour.
        """
        if not isinstance(dropper.vision, LocalMerge):
            return dropper
        alone = TokenDropper(
            vision=dropper.vision,
            vision_positions=dropper.vision_positions,
            cls_attention=dropper.cls_attention,
        )
        low, high = dropper.vision.thresholds["tau"]
        result = self._search(alone, "vision.tau", Budget(share=share), (low, high))
        if isinstance(result, SearchResult):
            return with_field(dropper, "vision.tau", result.value)
        tau = low if result.nearest > share else high
        return with_field(dropper, "vision.tau", tau)

    def budget(self, dropper: TokenDropper, field: str, budget: Budget) -> TokenDropper:
        """Find the value of a threshold at which a method meets a budget.

        Raises:
            ValueError: If no value meets it, or the field has no range to search.
        """
        stage, _, name = field.partition(".")
        limits = getattr(dropper, stage).thresholds.get(name)
        if limits is None:
            raise ValueError(f"{field} cannot be searched: give it a value, as in {field}=<value>")
        result = self._search(dropper, field, budget, limits)
        if not isinstance(result, SearchResult):
            nearest = f"{result.nearest:.1%}" if budget.share else f"{result.nearest:.1f}"
            raise ValueError(
                f"budget: no value of {field} gives {budget} on these prompts; the nearest "
                f"executed average is {nearest}"
            )
        return with_field(dropper, field, result.value)

    def _search(
        self, dropper: TokenDropper, field: str, budget: Budget, limits: tuple[float, float]
    ) -> SearchResult | OutOfReach:
        shares = budget.share is not None

        def average(value: float) -> float:
            changed = with_field(dropper, field, value)
            values = executed(self.model, changed, [self.inputs], shares=shares)
            return sum(values) / len(values)

        replay = observe(self.model, dropper, field, [self.inputs])
        return threshold(average, replay, dropper, field, budget, *limits, TOLERANCE)


def scheduled(
    search: ThresholdSearch, dropper: TokenDropper, schedule: Mapping[str, Any], slots: int
) -> TokenDropper:
    """The method with the counts of a schedule, which are those of a prompt of ``slots`` tokens.

    Raises:
        ValueError: If the method's prefill has no thresholds, or other layers than the schedule.
    """
    method = dropper.prefill
    if not isinstance(method, ThresholdPrefill):
        name = type(method).__name__
        raise ValueError(f"a schedule needs a prefill strategy with thresholds, got {name}")
    if isinstance(dropper.vision, LocalMerge):
        removed = schedule["windows"] * (dropper.vision.window**2 - 1)
        dropper = search.merging(dropper, (slots - removed) / slots)
    return replace(dropper, prefill=Counted(method, schedule["after"]))
