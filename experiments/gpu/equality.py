"""Whether dropping equals masking on the device, for one prompt and for a ragged batch.

In float32 (TF32 off) the error has a bar. In bfloat16 there is none: the error is reported together
with the noise of bfloat16 itself, which is the distance of the masked model in bfloat16 from the
same masked model in float32.
"""

import copy
import importlib.util
import math
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from experiments.gpu.methods import small_methods
from experiments.gpu.runner import GpuStep, Row
from experiments.gpu.shapes import SHAPES, Shape, batch, build, greedy, prompt
from mustdrop import TokenDropper
from mustdrop.masked import masked_logits, relative_error
from mustdrop.profiling.device import Device, exact_float32

BAR = 1e-5  # largest relative error of a logit in float32
MAIN = ("mustdrop", "fastv", "cls_topk", "tome", "sparsevlm")
NOT_WITH_FLASH = "tome"  # it adds sizes to attention scores, which flash attention cannot


class Equality:
    """Comparison of droppers with masks on one small model.

    Args:
        device: Device to measure on.
        shape: Name of the model's shape.
        dtype: Type of the weights.
        attention: Attention implementation.
        new_tokens: Length of an answer.
    """

    def __init__(
        self, device: Device, shape: str, dtype: torch.dtype, attention: str, new_tokens: int
    ) -> None:
        self.device, self.shape, self.dtype = device, SHAPES[shape], dtype
        self.attention, self.new_tokens = attention, new_tokens

    def steps(self) -> list[GpuStep]:
        """List the steps: build, then each method (only the main ones outside float32 and sdpa)."""
        flash = self.attention.startswith("flash")
        if flash and not self._has_flash():
            return [GpuStep("flash attention", lambda: {"kind": "note", "note": "not installed"})]
        methods = small_methods(self.shape.slots)
        if (self.dtype, self.attention) != (torch.float32, "sdpa"):
            methods = {name: methods[name] for name in MAIN if not flash or name != NOT_WITH_FLASH}
        return [
            GpuStep("build", self.build),
            *(
                GpuStep(f"{name}, {kind}", partial(self.check, name, dropper, kind), ["build"])
                for name, dropper in methods.items()
                for kind in ("one prompt", "ragged batch")
            ),
        ]

    def _has_flash(self) -> bool:
        return self.device.cuda and importlib.util.find_spec("flash_attn") is not None

    def build(self) -> Row:
        """Build the model, its float32 twin for bfloat16, and the prompts."""
        exact_float32()
        self.model = build(self.shape, self.device.name, self.dtype, self.attention)
        self.twin = None
        if self.dtype != torch.float32:
            self.twin = copy.deepcopy(self.model).float()
            self.twin.set_attn_implementation("sdpa")
        self.inputs = inputs(self.shape, self.model)
        self.whole = {
            name: greedy(self.model, given, 1)[1][:, 0] for name, given in self.inputs.items()
        }
        return {"kind": "model", "tf32": False, "dtype": str(self.dtype).removeprefix("torch.")}

    def check(self, name: str, dropper: TokenDropper, batch_kind: str) -> Row:
        """Measure a method's largest errors over the prompts of a batch and all new tokens.

        The effect is the distance by which dropping moves the first token's logits. It must be far
        larger than the error; otherwise the check shows nothing.
        """
        given = self.inputs[batch_kind]
        with dropper.attach(self.model) as run:
            tokens, logits = greedy(self.model, given, self.new_tokens)
        masked = partial(masked_logits, run=run, new_tokens=tokens)
        rows: list[Mapping[str, float]] = []
        for number, dropped in enumerate(logits):
            expected = masked(self.model, inputs=given, number=number)
            row = {"error": relative_error(dropped.float(), expected.float())}
            if self.twin is not None:
                exact = masked(self.twin, inputs=as_float32(given), number=number)
                row["noise"] = relative_error(expected.float(), exact)
                row["error_to_float32"] = relative_error(dropped.float(), exact)
            rows.append(row)
        counts = [ledger.counts().executed_average for ledger in run.ledgers]
        errors = {key: largest(row[key] for row in rows) for key in rows[0]}
        errors["effect"] = relative_error(logits[:, 0].float(), self.whole[batch_kind].float())
        passed = None if self.twin is not None else errors["error"] <= BAR
        return {
            "kind": "equality", "method": name, "batch": batch_kind, "attention": self.attention,
            "dtype": str(self.dtype).removeprefix("torch."), **errors, "passed": passed,
            "bar": BAR if passed is not None else None, "executed": counts,
        }  # fmt: skip


def largest(values: Iterable[float]) -> float:
    """Return the largest value, or NaN if there is one, which ``max`` can hide."""
    return max(values, key=lambda value: math.inf if math.isnan(value) else value)


def inputs(shape: Shape, model: Any) -> dict[str, dict[str, Tensor]]:
    """Make one prompt, and a batch whose prompts differ in length and number of images."""
    first = prompt(shape, model, text=(3, 7))
    return {
        "one prompt": first,
        "ragged batch": batch(first, prompt(shape, model, text=(5, 9), images=2, seed=3)),
    }


def as_float32(given: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert inputs for the float32 twin."""
    return {
        name: value.float() if value.is_floating_point() else value for name, value in given.items()
    }
