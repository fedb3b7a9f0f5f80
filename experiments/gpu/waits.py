"""Number of times that a prefill makes the host wait for the device, by line of code.

On a CUDA device torch warns of every operation that waits. The warnings are counted for
the line of mustdrop, or else of transformers, that causes them.
"""

import sys
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from types import FrameType
from typing import Any

import torch

from experiments.gpu.methods import small_methods
from experiments.gpu.runner import GpuStep, Row, short_path
from experiments.gpu.shapes import SHAPES, build
from mustdrop import TokenDropper
from mustdrop.profiling.device import Device
from mustdrop.profiling.random_prompts import USUAL_SIZE, RandomPrompts

MESSAGE = "called a synchronizing CUDA operation"
VANILLA = "vanilla"
BATCHES = (1, 4)
# Waits of a prefill that decide nothing: for the ids of the batch, for the checks at its end, for
# the numbers of key tokens, and for the pixels that a random draw depends on.
READING = 4


class Waits:
    """Waits of each method on one small model, compared with the plain model.

    Args:
        device: Device to measure on.
        shape: Name of the model's shape.
    """

    def __init__(self, device: Device, shape: str) -> None:
        self.device, self.shape = device, SHAPES[shape]

    def steps(self) -> list[GpuStep]:
        """List the steps: build, then each method on a batch of one and of several prompts."""
        arms: dict[str, TokenDropper | None] = {VANILLA: None, "hooks alone": TokenDropper()}
        arms |= small_methods(self.shape.slots)
        return [
            GpuStep("build", self.build),
            *(
                GpuStep(f"{name}, batch {count}", partial(self.count, name, arm, count), ["build"])
                for name, arm in arms.items()
                for count in BATCHES
            ),
        ]

    def build(self) -> Row:
        """Build the model and the prompts."""
        self.model = build(self.shape, self.device.name, torch.bfloat16)
        prompts = RandomPrompts(self.model, 1, USUAL_SIZE)
        self.inputs = {count: prompts.inputs(count) for count in BATCHES}
        self.plain = {count: len(self._waits(None, count)) for count in BATCHES}
        return {"kind": "model", "dtype": "bfloat16"}

    def count(self, name: str, dropper: TokenDropper | None, count: int) -> Row:
        """Count the waits of a prefill; the bar is one for each decision and some for reading."""
        lines = self._waits(dropper, count)
        places = decision_points(dropper)
        bar = self.plain[count] + (places + READING if dropper is not None else 0)
        return {
            "kind": "waits", "method": name, "batch": count, "waits": len(lines),
            "places": places, "bar": bar, "passed": len(lines) <= bar,
            "lines": dict(Counter(lines).most_common()),
        }  # fmt: skip

    def _waits(self, dropper: TokenDropper | None, count: int) -> list[str]:
        """Lines that wait in one prefill, after another one as a warm-up."""
        with dropper.attach(self.model) if dropper is not None else nullcontext():
            self._prefill(count)
            self.device.wait()
            with counted_waits(self.device) as lines:
                self._prefill(count)
        return lines

    @torch.inference_mode()
    def _prefill(self, count: int) -> None:
        self.model(**self.inputs[count], logits_to_keep=1)


def decision_points(dropper: TokenDropper | None) -> int:
    """Count the points where a method decides: encoder blocks, key tokens, layers, the cache."""
    if dropper is None:
        return 0
    vision = len(dropper.vision.places) if dropper.vision is not None else 0
    prefill = len(dropper.prefill.layers) if dropper.prefill is not None else 0
    others = (dropper.key_tokens is not None) + (dropper.decode is not None)
    return vision + prefill + others


@contextmanager
def counted_waits(device: Device) -> Iterator[list[str]]:
    """Collect the source lines of the waits while the context is open, one for each wait.

    On the CPU nothing waits, and the list stays empty.
    """
    lines: list[str] = []

    def collect(message: Any, *_: Any) -> None:
        if MESSAGE in str(message):
            lines.append(source_line(sys._getframe(1)))

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = collect
        with device.synchronizing():
            yield lines


def source_line(frame: FrameType | None) -> str:
    """Find the innermost stack line of mustdrop, or else of transformers, or else of any file."""
    stack = traceback.extract_stack(frame)
    named = [(short_path(entry.filename), entry) for entry in reversed(stack)]
    for package in ("mustdrop/", "transformers/", ""):
        for path, entry in named:
            if path.startswith(package):
                return f"{path}:{entry.lineno} {entry.line}"
    return "unknown"
