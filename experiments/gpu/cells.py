"""The cells of `make gpu`, in their order of priority.

Imports nothing that an installation might lack; each cell imports what it needs when it starts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from experiments.gpu.runner import GpuCell, GpuStep


@dataclass(frozen=True)
class Setting:
    """Sizes of the measurements.

    Attributes:
        device: ``cuda`` or ``cpu``.
        small: Shape of the model on which dropping is compared with masking.
        full: Shape of the model that is timed.
        batches: Batch sizes that are timed.
        rounds: Rounds of prefills; a quarter as many, at least one, of whole answers.
        warm_ups: Prefills of each arm before the first round; at most one of whole answers.
        new_tokens: Length of a timed answer.
        check_tokens: Length of an answer that is compared with masking.
    """

    device: str
    small: str
    full: str
    batches: Sequence[int]
    rounds: int
    new_tokens: int
    check_tokens: int
    warm_ups: int


SIZES = {
    "full": {
        "small": "small", "full": "llava15_7b", "batches": (1, 8), "new_tokens": 32,
        "check_tokens": 4, "warm_ups": 2,
    },
    "tiny": {
        "small": "tiny", "full": "tiny", "batches": (1, 2), "new_tokens": 3, "check_tokens": 2,
        "warm_ups": 0,
    },
}  # fmt: skip


def cells(setting: Setting) -> list[GpuCell]:
    """List all cells, the most important first."""

    @cache
    def full_model() -> Any:
        """Build the model that all timed cells share."""
        import torch

        from experiments.gpu.shapes import SHAPES, build

        return build(SHAPES[setting.full], setting.device, torch.bfloat16)

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

    def timing(measure: str, batch: int) -> GpuCell:
        def steps() -> Sequence[GpuStep]:
            from experiments.gpu.timing import Bench
            from mustdrop.profiling.device import Device

            given = (Device(setting.device), setting.full, batch, setting.new_tokens, full_model)
            rounds, warm_ups = setting.rounds, setting.warm_ups
            if measure == "generate":
                rounds, warm_ups = max(1, rounds // 4), min(1, warm_ups)
            return Bench(*given).steps(measure, rounds, warm_ups)

        name = "first token" if measure == "prefill" else f"{setting.new_tokens} new tokens"
        return GpuCell(f"{name}, {setting.full}, batch {batch}", steps)

    return [
        equality("float32", "sdpa"),
        equality("bfloat16", "sdpa"),
        GpuCell("device waits", waits),
        *(timing("prefill", batch) for batch in setting.batches),
        *(timing("generate", batch) for batch in setting.batches),
        equality("float32", "eager"),
        equality("bfloat16", "flash_attention_2"),
    ]
