"""Prefill, first token, new tokens and peak memory of each method, with its reference time.

The arms of a round run one after the other, in an order that changes by round, so that a slow
moment of the machine does not affect one arm alone; ratios are taken within a round.
"""

from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor

from experiments.gpu.methods import scheduled_methods, schedules
from experiments.gpu.runner import GpuStep, Row
from experiments.gpu.shapes import SHAPES, questions
from mustdrop import TokenDropper
from mustdrop.models import adapter_for
from mustdrop.profiling.device import Device, Mark
from mustdrop.profiling.reference import Reference, recorded

VANILLA = "vanilla"
# part -> its first and last mark; a whole answer has the total alone
PARTS = {"encoder": ("start", "decoder"), "prefill": ("decoder", "head"), "total": ("start", "end")}


class Bench:
    """One model and one batch of prompts; the arms are measured on them.

    Args:
        device: Device to measure on.
        shape: Name of the model's shape.
        batch: Number of prompts.
        new_tokens: Length of an answer.
        model: Returns the model, which the cells share.
    """

    def __init__(
        self, device: Device, shape: str, batch: int, new_tokens: int, model: Callable[[], Any]
    ) -> None:
        self.device, self.shape, self.batch, self.new_tokens = device, shape, batch, new_tokens
        self.get_model = model
        self.counts = schedules(shape)
        budgets = [f"{method} {budget}" for method in self.counts for budget in self.counts[method]]
        # both methods at the largest budget, then both at the next
        self.arms = [VANILLA, *sorted(budgets, key=lambda arm: -int(arm.split(" t")[1]))]
        self.droppers: dict[str, TokenDropper] = {}
        self.references: dict[str, Reference] = {}

    def steps(self, measure: str, rounds: int, warm_ups: int) -> list[GpuStep]:
        """List the steps: build, warm-ups, then rounds.

        Args:
            measure: ``prefill``, or ``generate`` for whole answers.
            rounds: Number of rounds.
            warm_ups: Number of runs of each arm before the first round.
        """
        run = {"prefill": self.prefill, "generate": self.generate}[measure]
        steps = [GpuStep("build", self.build)]
        for arm in self.arms:
            warm_up = partial(self.warm_up, arm, run, warm_ups)
            steps.append(GpuStep(f"warm-up: {arm}", warm_up, needs=["build"]))
        for number in range(rounds):
            turn = number % len(self.arms)
            for arm in self.arms[turn:] + self.arms[:turn]:
                pair = ("method", "reference") if number % 2 else ("reference", "method")
                steps += [
                    GpuStep(
                        f"round {number + 1}: {arm}, {way}",
                        partial(self.measured, run, arm, way, number + 1),
                        needs=[f"warm-up: {arm}"],
                    )
                    for way in pair
                ]
        return steps

    def build(self) -> Row:
        """Build the model, the prompts and the droppers."""
        start = self.device.mark()
        self.model = self.get_model()
        self.adapter = adapter_for(self.model)
        self.inputs = questions(SHAPES[self.shape], self.model, self.batch)
        self.droppers = scheduled_methods(self.counts, self.model, self.inputs["pixel_values"])
        end = self.device.mark()
        self.device.wait()
        weights = sum(p.numel() * p.element_size() for p in self.model.parameters())
        return {
            "kind": "model", "shape": self.shape, "weights_bytes": weights,
            "dtype": str(self.model.dtype).removeprefix("torch."), "batch": self.batch,
            "prompt_tokens": self.inputs["input_ids"].shape[1],
            "attention": self.adapter.language_model.config._attn_implementation,
            "milliseconds": self.device.milliseconds(start, end),
        }  # fmt: skip

    def warm_up(self, arm: str, run: Callable[[str, str], Row], times: int) -> Row:
        """Run an arm without timing it, and record the lengths that its reference needs."""
        dropper = self.droppers.get(arm, TokenDropper())  # vanilla: no stages, only a ledger
        work, record = recorded(self.model, self.inputs, dropper)
        lengths = work.lengths
        self.references[arm] = Reference(self.model, self.inputs, work, self.device)
        for way in ("method", "reference") * times:
            run(arm, way)
        return {
            "kind": "lengths", "arm": arm, "batch": self.batch, **lengths.describe(),
            "key_tokens": int(record.ledgers[0].protected.sum()),
            "scheduled": self.counts.get(arm.split()[0], {}).get(arm.split()[-1]),
        }  # fmt: skip

    def measured(self, run: Callable[[str, str], Row], arm: str, way: str, number: int) -> Row:
        """Measure one arm of a round."""
        return {
            "kind": "time", "arm": arm, "way": way, "batch": self.batch, "round": number,
            **run(arm, way),
        }  # fmt: skip

    def prefill(self, arm: str, way: str) -> Row:
        """Time the parts from pixels and ids on the device to the first token; measure memory."""
        if way == "reference":
            return self._timed(lambda: self.references[arm].prefill()[2])
        with ExitStack() as stack:
            stack.enter_context(self._attached(arm))
            marks: dict[str, Mark] = {}

            def mark(name: str) -> Callable[..., None]:
                def hook(*_: Any) -> None:
                    marks[name] = self.device.mark()

                return hook

            decoder = self.adapter.language_model
            # before and after the dropper's hooks, so that its decisions are timed too
            begin = decoder.register_forward_pre_hook(mark("decoder"), prepend=True)
            stack.callback(begin.remove)
            stack.callback(decoder.register_forward_hook(mark("head")).remove)

            def forward() -> dict[str, Mark]:
                marks["start"] = self.device.mark()
                out = self.model(**self.inputs, logits_to_keep=1, use_cache=True)
                out.logits[:, -1].argmax(-1)
                marks["end"] = self.device.mark()
                return marks

            return self._timed(forward)

    def generate(self, arm: str, way: str) -> Row:
        """Time from pixels and ids on the device to the last token of an answer."""
        if way == "reference":
            return self._timed(lambda: self.references[arm].generate(self.new_tokens))

        def answer() -> dict[str, Mark]:
            start = self.device.mark()
            out = self.model.generate(
                **self.inputs, max_new_tokens=self.new_tokens, do_sample=False
            )
            end = self.device.mark()
            self._check(out)
            return {"start": start, "end": end}

        with self._attached(arm):
            return self._timed(answer)

    def _check(self, tokens: Tensor) -> None:
        new = tokens.shape[1] - self.inputs["input_ids"].shape[1]
        if new != self.new_tokens:
            raise ValueError(f"an answer must have {self.new_tokens} tokens, got {new}")

    def _attached(self, arm: str) -> Any:
        """Attach the arm's dropper to the model; do nothing for vanilla."""
        if arm == VANILLA:
            return nullcontext()
        return self.droppers[arm].attach(self.model)

    def _timed(self, work: Callable[[], dict[str, Mark]]) -> Row:
        """Run ``work`` on an idle device; the host waits for it before and after, not within."""
        self.device.wait()
        before = self.device.start_memory()
        with torch.inference_mode():
            marks = work()
        self.device.wait()
        row: dict[str, Any] = {
            f"{part}_ms": self.device.milliseconds(marks[start], marks[end])
            for part, (start, end) in PARTS.items()
            if start in marks and end in marks
        }
        return {**row, "peak_bytes": self.device.peak_memory(), "bytes_before": before}
