"""Measurements of the arms on one batch of prompts: time to the first token, answers, memory.

The arms are the plain model, the method, its reference time, and controls with other droppers.
"""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mustdrop import cost
from mustdrop.dropper import TokenDropper
from mustdrop.engine.run import DropRun
from mustdrop.models import adapter_for
from mustdrop.models.shapes import decoder_shape, encoder_shape
from mustdrop.profiling.counting import attention_kernels, cache_bytes, counted_flops
from mustdrop.profiling.device import Device, Mark
from mustdrop.profiling.parts import PartClock
from mustdrop.profiling.reference import RecordedWork, Reference, recorded

Numbers = dict[str, float | int]
VANILLA, METHOD, REFERENCE = "vanilla", "method", "reference"


@dataclass(frozen=True, eq=False)
class Arm:
    """A way to run the model that is timed.

    Attributes:
        name: Name in the record.
        dropper: Dropper that is attached; None: the plain model.
        reference: Whether the reference time of the dropper's lengths is measured in its place.
    """

    name: str
    dropper: TokenDropper | None
    reference: bool = False


class BatchBench:
    """A model and a batch of prompts on which arms are measured.

    Args:
        device: Device to measure on.
        model: Model that generates without an end token, or with a processor that forbids it.
        inputs: Prompts of one batch.
    """

    def __init__(self, device: Device, model: Any, inputs: Mapping[str, Tensor]) -> None:
        self.device, self.model, self.inputs = device, model, inputs
        self.adapter = adapter_for(model)
        self.references: dict[str, Reference] = {}
        self.works: list[tuple[TokenDropper | None, RecordedWork, DropRun]] = []

    @property
    def batch(self) -> int:
        """Number of prompts."""
        return len(self.inputs["input_ids"])

    def work(self, arm: Arm) -> tuple[RecordedWork, DropRun]:
        """Run a prefill under the dropper of the arm and record its lengths, once per dropper.

        The plain model has no strategies.
        """
        for dropper, work, run in self.works:
            if dropper is arm.dropper:
                return work, run
        work, run = recorded(self.model, self.inputs, arm.dropper or TokenDropper())
        self.works.append((arm.dropper, work, run))
        return work, run

    def facts(self, arm: Arm) -> dict[str, Any]:
        """Count tokens, operations, cache and kernels of the arm; makes its reference ready.

        Returns:
            Lengths of the run; flops, operations by torch's counter; flops_formula, by
            :mod:`mustdrop.cost` (None where a part of the model has no closed form); kv_bytes,
            measured in the cache; kv_formula, of the ledgers; attention, calls of each kernel.
        """
        work, run = self.work(arm)
        facts: dict[str, Any] = work.lengths.describe()
        if arm.reference:
            reference = Reference(self.model, self.inputs, work, self.device)
            self.references[arm.name] = reference
            return {**facts, "flops": counted_flops(reference.prefill)}
        cached: list[int] = []
        with self._attached(arm):
            # the output is not kept: a cache of a full-size model takes gigabytes
            flops = counted_flops(lambda: cached.append(cache_bytes(self._forward())))
            kernels = attention_kernels(self._forward)
        return {
            **facts, "flops": flops, "kv_bytes": cached[0], "attention": kernels,
            **self._formulas(run),
        }  # fmt: skip

    def _formulas(self, run: DropRun) -> dict[str, int | float | None]:
        try:
            decoder, encoder = decoder_shape(self.adapter), encoder_shape(self.adapter)
        except ValueError:  # a part of this model has no closed form
            return {"flops_formula": None, "kv_formula": None}
        macs = sum(
            cost.prefill_macs(ledger, decoder) + cost.encoder_macs(ledger, encoder)
            for ledger in run.ledgers
        )
        cached = sum(cost.kv_bytes(ledger, decoder) for ledger in run.ledgers)
        return {"flops_formula": cost.flops(macs), "kv_formula": cached}

    def prefill(self, arm: Arm) -> Numbers:
        """Time the parts from pixels and ids on the device to the first token; measure memory."""
        if arm.reference:
            return self._reference_prefill(self.references[arm.name])
        with ExitStack() as stack:
            stack.enter_context(self._attached(arm))
            clock = PartClock(self.device, self.adapter, arm.dropper or TokenDropper())
            stack.enter_context(clock.attach())

            def first_token() -> dict[str, Mark]:
                start = self.device.mark()
                self._forward()["logits"][:, -1].argmax(-1)
                return {"start": start, "end": self.device.mark()}

            marks, memory = self._timed(first_token)
            parts = clock.milliseconds(marks["start"], marks["end"])
        total = self.device.milliseconds(marks["start"], marks["end"])
        return {"ttft_ms": total, **{f"part_{k}_ms": v for k, v in parts.items()}, **memory}

    def answer(self, arm: Arm, new_tokens: int) -> Numbers:
        """Time an answer of so many tokens: the whole, and a token after the first one."""
        if arm.reference:
            reference = self.references[arm.name]
            marks, memory = self._timed(lambda: reference.generate(new_tokens))
        else:
            with self._attached(arm):
                marks, memory = self._timed(lambda: self._generated(new_tokens))
        between = self.device.milliseconds
        numbers = {f"e2e_{new_tokens}_ms": between(marks["start"], marks["end"])}
        if new_tokens > 1:
            steps = between(marks["first"], marks["last"])
            numbers[f"tpot_{new_tokens}_ms"] = steps / (new_tokens - 1)
        return {**numbers, **{f"{name}_{new_tokens}": value for name, value in memory.items()}}

    def _reference_prefill(self, reference: Reference) -> Numbers:
        marks, memory = self._timed(lambda: reference.prefill()[2])
        between = self.device.milliseconds
        spans = {"encoder": ("start", "decoder"), "layers": ("decoder", "head")}
        parts = {f"part_{k}_ms": between(marks[a], marks[b]) for k, (a, b) in spans.items()}
        head = between(marks["head"], marks["end"])
        total = between(marks["start"], marks["end"])
        return {"ttft_ms": total, **parts, "part_head_ms": head, **memory}

    def _forward(self) -> Any:
        return self.model(**self.inputs, logits_to_keep=1, use_cache=True)

    def _generated(self, new_tokens: int) -> dict[str, Mark]:
        steps: list[Mark] = []
        hook = self.model.register_forward_hook(lambda *_: steps.append(self.device.mark()))
        try:
            start = self.device.mark()
            tokens = self.model.generate(
                **self.inputs, max_new_tokens=new_tokens, min_new_tokens=new_tokens,
                do_sample=False,
            )  # fmt: skip
            end = self.device.mark()
        finally:
            hook.remove()
        made = tokens.shape[1] - self.inputs["input_ids"].shape[1]
        if made != new_tokens or len(steps) != new_tokens:
            raise ValueError(f"an answer must have {new_tokens} tokens, got {made}")
        return {"start": start, "first": steps[0], "last": steps[-1], "end": end}

    def _attached(self, arm: Arm) -> Any:
        """Attach the arm's dropper to the model; do nothing for the plain model."""
        return ExitStack() if arm.dropper is None else arm.dropper.attach(self.model)

    def _timed(self, work: Callable[[], dict[str, Mark]]) -> tuple[dict[str, Mark], Numbers]:
        """Run ``work`` on an idle device; the host waits for it before and after, not within."""
        self.device.wait()
        before = self.device.start_memory()
        with torch.inference_mode():
            marks = work()
        self.device.wait()
        peak = self.device.peak_memory()
        if before is None or peak is None:
            return marks, {}
        return marks, {"peak_bytes": peak, "extra_bytes": max(0, peak - before)}
