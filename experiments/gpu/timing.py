"""Time to the first token by part, answers and memory of each method, with its reference time.

The arms of a round run one after the other, in an order that changes by round, so that a slow
moment of the machine does not affect one arm alone; ratios are taken within a round. The
measurements are those of ``mustdrop profile``.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

from experiments.gpu.models import TimedModel, TimedModels
from experiments.gpu.runner import GpuStep, Row
from mustdrop.profiling.measure import VANILLA, Arm, BatchBench, Numbers

METHOD, REFERENCE = "method", "reference"
WARM_UP_TOKENS = 4  # of an answer that is not timed


class ArmTimes:
    """Measurements of some arms on one model and one batch of equal prompts.

    Args:
        models: The model in memory.
        name: Name of the model.
        batch: Number of prompts.
        arms: Names of the arms, such as ``fastv 64/576``, the most important first.
        new_tokens: Length of an answer; 1: the time to the first token is measured.
    """

    def __init__(
        self, models: TimedModels, name: str, batch: int, arms: Sequence[str], new_tokens: int
    ) -> None:
        self.models, self.name, self.batch = models, name, batch
        self.arms, self.new_tokens = [VANILLA, *arms], new_tokens

    def steps(self, rounds: int, warm_ups: int) -> list[GpuStep]:
        """List the steps: build, then count and warm up each arm, then rounds.

        Args:
            rounds: Number of rounds.
            warm_ups: Number of runs of each arm before the first round.
        """
        steps = [GpuStep("build", self.build)]
        for arm in self.arms:
            steps.append(GpuStep(f"count: {arm}", partial(self.count, arm, warm_ups), ["build"]))
        for number in range(rounds):
            turn = number % len(self.arms)
            for arm in self.arms[turn:] + self.arms[:turn]:
                pair = (METHOD, REFERENCE) if number % 2 else (REFERENCE, METHOD)
                steps += [
                    GpuStep(
                        f"round {number + 1}: {arm}, {way}",
                        partial(self.timed, arm, way, number + 1),
                        needs=[f"count: {arm}"],
                    )
                    for way in pair
                ]
        return steps

    def build(self) -> Row:
        """Build the model, if another one is in memory, and the prompts."""
        device = self.models.device
        start = device.mark()
        model = self.models.get(self.name)
        bench = model.bench(self.batch)
        end = device.mark()
        device.wait()
        return {
            "kind": "model", **model.describe(), "batch": self.batch,
            "prompt_tokens": bench.inputs["input_ids"].shape[1],
            "milliseconds": device.milliseconds(start, end),
        }  # fmt: skip

    def count(self, arm: str, warm_ups: int) -> Row:
        """Count the work of an arm and of its reference, and run both without timing them.

        An earlier cell may have counted them.
        """
        model = self.models.get(self.name)
        bench, key = model.bench(self.batch), (self.batch, arm)
        row: dict[str, Any] = {"kind": "warm", "arm": arm}
        if key not in model.arms:
            method, reference = _pair(model, arm)
            facts = bench.facts(method)
            row = {
                "kind": "facts", "arm": arm, "batch": self.batch, **facts,
                "reference_flops": bench.facts(reference)["flops"],
            }  # fmt: skip
            model.arms[key] = (method, reference)
        for measured in model.arms[key] * warm_ups:
            self._measure(bench, measured, min(WARM_UP_TOKENS, self.new_tokens))
        return row

    def timed(self, arm: str, way: str, number: int) -> Row:
        """Measure one arm of a round."""
        model = self.models.get(self.name)
        measured = model.arms[self.batch, arm][way == REFERENCE]
        return {
            "kind": "time", "arm": arm, "way": way, "batch": self.batch, "round": number,
            **self._measure(model.bench(self.batch), measured, self.new_tokens),
        }  # fmt: skip

    @staticmethod
    def _measure(bench: BatchBench, arm: Arm, new_tokens: int) -> Numbers:
        return bench.prefill(arm) if new_tokens == 1 else bench.answer(arm, new_tokens)


def _pair(model: TimedModel, arm: str) -> tuple[Arm, Arm]:
    """An arm, and the arm of its reference time."""
    dropper = None if arm == VANILLA else model.methods.get(arm)
    return Arm(arm, dropper), Arm(f"{arm}, {REFERENCE}", dropper, reference=True)
