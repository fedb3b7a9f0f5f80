"""Rounds of a profile: the arms one after the other, in changing order, kept after every round.

A slow moment of the machine then affects all arms of a round, and ratios are taken within a round.
Knows nothing about models: the measurements are functions that are given.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from mustdrop.profiling.measure import Arm, Numbers


@runtime_checkable
class ArmBench(Protocol):
    """Measurements of arms on one batch of prompts."""

    def facts(self, arm: Arm) -> dict[str, Any]:
        """Numbers of an arm that do not depend on time."""
        ...

    def prefill(self, arm: Arm) -> Numbers:
        """Times of a prefill."""
        ...

    def answer(self, arm: Arm, new_tokens: int) -> Numbers:
        """Times of an answer."""
        ...


@dataclass(frozen=True)
class RoundPlan:
    """What is measured in a round.

    Attributes:
        rounds: Number of rounds.
        warm_ups: Number of runs of each arm before the first round.
        new_tokens: Lengths of the answers; 1 is the time to the first token, which is always
            measured.
    """

    rounds: int
    warm_ups: int
    new_tokens: Sequence[int]

    def measure(self, bench: ArmBench, arm: Arm) -> Numbers:
        """Measure an arm once."""
        numbers = bench.prefill(arm)
        for tokens in self.new_tokens:
            if tokens > 1:
                numbers |= bench.answer(arm, tokens)
        return numbers

    def steps(self, arms: int) -> int:
        """Number of measurements of one batch, warm-ups and counting included."""
        return arms * (1 + self.warm_ups + self.rounds)


def run_rounds(
    bench: ArmBench,
    arms: Sequence[Arm],
    entry: dict[str, Any],
    plan: RoundPlan,
    save: Callable[[], None] = lambda: None,
    tick: Callable[[str], None] = lambda name: None,
) -> None:
    """Measure the rounds that an entry lacks, and save after each of them.

    Args:
        bench: Batch of prompts.
        arms: Arms to measure.
        entry: Entry of the batch in efficiency.json; changed in place.
        plan: What is measured.
        save: Saves the record.
        tick: Called before each measurement with its name.

    Raises:
        ValueError: If the arms keep other numbers of tokens than in earlier rounds of the entry.
    """
    kept: dict[str, Any] = entry.setdefault("arms", {})
    for arm in arms:
        tick(f"{arm.name}, counting")
        facts = bench.facts(arm)
        before = kept.setdefault(arm.name, {"facts": facts, "rounds": {}})["facts"]
        if before["vision_tokens"] != facts["vision_tokens"]:
            raise ValueError(
                f"{arm.name} now keeps {facts['vision_tokens']} vision tokens per layer, but in "
                f"earlier rounds {before['vision_tokens']}: force=true measures again"
            )
    for arm in arms:
        for _ in range(plan.warm_ups):
            tick(f"{arm.name}, warm-up")
            plan.measure(bench, arm)
    for number in range(entry.setdefault("rounds", 0), plan.rounds):
        turn = number % len(arms)
        order = [*arms[turn:], *arms[:turn]]
        numbers = {}
        for arm in order if number % 2 else reversed(order):
            tick(f"{arm.name}, round {number + 1}")
            numbers[arm.name] = plan.measure(bench, arm)
        for name, measured in numbers.items():
            for key, value in measured.items():
                kept[name]["rounds"].setdefault(key, []).append(value)
        entry["rounds"] = number + 1
        save()
