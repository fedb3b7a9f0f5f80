"""The cells of `make gpu`, in their order of priority.

Imports nothing that an installation might lack; each cell imports what it needs when it starts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from experiments.gpu.runner import GpuCell, GpuStep

MODELS = ("llava15_7b", "llava_next_7b", "qwen2_5_vl_7b")
MAIN, OTHERS = ("mustdrop", "fastv", "visionzip"), ("divprune", "sparsevlm", "random")
# Shares of the vision tokens: 192, 128 and 64 of LLaVA-1.5's, and the same of other models'.
LARGE, MIDDLE, SMALL = "192/576", "128/576", "64/576"


@dataclass(frozen=True)
class Setting:
    """Sizes of the measurements.

    Attributes:
        device: ``cuda`` or ``cpu``.
        small: Shape of the model on which dropping is compared with masking.
        tiny: Whether the timed models are tiny.
        batches: Batch sizes that are timed.
        other_batches: Batch sizes on which other methods are timed.
        most_others: Largest number of arms of other methods.
        rounds: Rounds of prefills; a fifth as many, at least one, of whole answers.
        new_tokens: Length of a timed answer.
        check_tokens: Length of an answer that is compared with masking.
        warm_ups: Prefills and short answers of each arm before the first round.
    """

    device: str
    small: str
    tiny: bool
    batches: Sequence[int]
    other_batches: Sequence[int]
    most_others: int
    rounds: int
    new_tokens: int
    check_tokens: int
    warm_ups: int


SIZES = {
    "full": {
        "small": "small", "tiny": False, "batches": (1, 8), "other_batches": (1, 8),
        "most_others": 99, "new_tokens": 32, "check_tokens": 4, "warm_ups": 1,
    },
    "tiny": {
        "small": "tiny", "tiny": True, "batches": (1, 2), "other_batches": (1,),
        "most_others": 3, "new_tokens": 3, "check_tokens": 2, "warm_ups": 0,
    },
}  # fmt: skip


def main_arms() -> list[str]:
    """Arms that must be reached."""
    return [f"{method} {budget}" for budget in (LARGE, SMALL) for method in MAIN]


def other_arms() -> list[str]:
    """Arms that are measured if time is left: other methods, and all at the budget between."""
    others = [f"{method} {budget}" for budget in (SMALL, LARGE) for method in OTHERS]
    return [*others, *(f"{method} {MIDDLE}" for method in (*MAIN, *OTHERS))]


def cells(setting: Setting) -> list[GpuCell]:
    """List all cells, the most important first."""

    @cache
    def models() -> Any:
        """The model in memory, which the timed cells share."""
        from experiments.gpu.models import TimedModels
        from mustdrop.profiling.device import Device

        return TimedModels(Device(setting.device), setting.tiny)

    def equality(dtype: str, attention: str) -> GpuCell:
        def steps() -> Sequence[GpuStep]:
            import torch

            from experiments.gpu.equality import Equality
            from mustdrop.profiling.device import Device

            given = (Device(setting.device), setting.small, getattr(torch, dtype), attention)
            return Equality(*given, setting.check_tokens).steps()

        return GpuCell(f"dropping = masking, {dtype}, {attention}", steps)

    def waits() -> Sequence[GpuStep]:
        from experiments.gpu.waits import Waits
        from mustdrop.profiling.device import Device

        return Waits(Device(setting.device), setting.small).steps()

    def timing(model: str, batch: int, tokens: int, arms: Sequence[str], name: str) -> GpuCell:
        def steps() -> Sequence[GpuStep]:
            from experiments.gpu.timing import ArmTimes

            rounds = setting.rounds if tokens == 1 else max(1, setting.rounds // 5)
            return ArmTimes(models(), model, batch, arms, tokens).steps(rounds, setting.warm_ups)

        measure = "first token" if tokens == 1 else f"{tokens} new tokens"
        return GpuCell(f"{measure}, {model}, batch {batch}{name}", steps)

    def timings(
        model: str, arms: Sequence[str], batches: Sequence[int], name: str = ""
    ) -> list[GpuCell]:
        return [
            timing(model, batch, tokens, arms, name)
            for tokens in (1, setting.new_tokens)
            for batch in batches
        ]

    llava, llava_next, qwen = MODELS
    others = other_arms()[: setting.most_others]
    return [
        equality("float32", "sdpa"),
        GpuCell("device waits", waits),
        *timings(llava, main_arms(), setting.batches),
        *timings(llava_next, main_arms(), setting.batches),
        equality("bfloat16", "sdpa, flash kernel"),
        equality("bfloat16", "sdpa, efficient kernel"),
        equality("bfloat16", "flash_attention_2"),
        equality("bfloat16", "flash_attention_3"),
        *timings(qwen, main_arms(), setting.batches),
        *(
            cell
            for model in MODELS
            for cell in timings(model, others, setting.other_batches, ", other methods")
        ),
        equality("float32", "eager"),
    ]
