"""Whether dropping equals masking on the device, for one prompt and for a ragged batch.

In float32 (TF32 off) the error has a bar. In bfloat16 the bar is measured: a multiple of the noise
of bfloat16 itself, which is the distance of the masked model in bfloat16 from the same masked model
in float32. The masked model runs with masks of its own, which flash attention does not take, so
that it always uses sdpa or eager attention.
"""

import copy
import importlib.util
import math
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from experiments.gpu.methods import small_methods
from experiments.gpu.runner import GpuStep, NotHere, Row
from experiments.gpu.shapes import SHAPES, Shape, batch, build, greedy, prompt
from mustdrop import TokenDropper
from mustdrop.masked import masked_logits, relative_error
from mustdrop.profiling.counting import attention_kernels
from mustdrop.profiling.device import Device, exact_float32

BAR = 1e-5  # largest relative error of a logit in float32
NOISES = 4.0  # largest error in bfloat16, in multiples of the noise
MAIN = ("mustdrop", "fastv", "cls_topk", "tome", "sparsevlm")
NOT_WITH_FLASH = "tome"  # it adds sizes to attention scores, which flash attention cannot
# Attention of a cell -> implementation, and the kernel that sdpa prefers to plain products
ATTENTION = {
    "sdpa": ("sdpa", None),
    "sdpa, flash kernel": ("sdpa", SDPBackend.FLASH_ATTENTION),
    "sdpa, efficient kernel": ("sdpa", SDPBackend.EFFICIENT_ATTENTION),
    "eager": ("eager", None),
    "flash_attention_2": ("flash_attention_2", None),
    "flash_attention_3": ("flash_attention_3", None),
}
PACKAGES = {"flash_attention_2": "flash_attn", "flash_attention_3": "flash_attn_interface"}


class Equality:
    """Comparison of droppers with masks on one small model.

    Args:
        device: Device to measure on.
        shape: Name of the model's shape.
        dtype: Type of the weights.
        attention: Name of an entry of ``ATTENTION``.
        new_tokens: Length of an answer.
    """

    def __init__(
        self, device: Device, shape: str, dtype: torch.dtype, attention: str, new_tokens: int
    ) -> None:
        self.device, self.shape, self.dtype = device, SHAPES[shape], dtype
        self.attention, self.new_tokens = attention, new_tokens
        self.implementation, self.kernel = ATTENTION[attention]

    def steps(self) -> list[GpuStep]:
        """List the steps: build, then each method (only the main ones outside float32 and sdpa)."""
        methods = small_methods(self.shape.slots)
        if (self.dtype, self.attention) != (torch.float32, "sdpa"):
            flash = self.implementation in PACKAGES
            methods = {name: methods[name] for name in MAIN if not flash or name != NOT_WITH_FLASH}
        return [
            GpuStep("build", self.build),
            *(
                GpuStep(f"{name}, {kind}", partial(self.check, name, dropper, kind), ["build"])
                for name, dropper in methods.items()
                for kind in ("one prompt", "ragged batch")
            ),
        ]

    def build(self) -> Row:
        """Build the model, its masked twin, its float32 twin for bfloat16, and the prompts.

        Raises:
            NotHere: If the attention needs a CUDA device or a package that is not installed.
        """
        package = PACKAGES.get(self.implementation)
        if package and (not self.device.cuda or importlib.util.find_spec(package) is None):
            raise NotHere(f"{self.implementation} needs a CUDA device and the package {package}")
        exact_float32()
        self.model = build(self.shape, self.device.name, self.dtype, self.implementation)
        self.masked = self._with_sdpa(self.model) if package else self.model
        self.exact = None
        if self.dtype != torch.float32:
            self.exact = self._with_sdpa(self.model).float()
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
        with dropper.attach(self.model) as run, self._kernel():
            kernels = attention_kernels(partial(self.model, **given, logits_to_keep=1))
            tokens, logits = greedy(self.model, given, self.new_tokens)
        masked = partial(masked_logits, run=run, new_tokens=tokens)
        rows: list[Mapping[str, float]] = []
        for number, dropped in enumerate(logits):
            expected = masked(self.masked, inputs=given, number=number)
            row = {"error": relative_error(dropped.float(), expected.float())}
            if self.exact is not None:
                exact = masked(self.exact, inputs=as_float32(given), number=number)
                row["noise"] = relative_error(expected.float(), exact)
                row["error_to_float32"] = relative_error(dropped.float(), exact)
            rows.append(row)
        counts = [ledger.counts().executed_average for ledger in run.ledgers]
        errors = {key: largest(row[key] for row in rows) for key in rows[0]}
        errors["effect"] = relative_error(logits[:, 0].float(), self.whole[batch_kind].float())
        bar = BAR if self.exact is None else NOISES * errors["noise"]
        return {
            "kind": "equality", "method": name, "batch": batch_kind, "attention": self.attention,
            "kernels": kernels, "dtype": str(self.dtype).removeprefix("torch."), **errors,
            "bar": bar, "passed": errors["error"] <= bar, "executed": counts,
        }  # fmt: skip

    def _kernel(self) -> AbstractContextManager[Any]:
        """Context in which sdpa uses the cell's kernel, or plain products where it cannot."""
        if self.kernel is None:
            return nullcontext()
        return sdpa_kernel([self.kernel, SDPBackend.MATH])

    @staticmethod
    def _with_sdpa(model: Any) -> Any:
        """A copy of the model with sdpa."""
        twin = copy.deepcopy(model)
        twin.set_attn_implementation("sdpa")
        return twin


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
