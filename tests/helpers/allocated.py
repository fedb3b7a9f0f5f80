"""Bytes that work allocates on the CPU, by torch's profiler."""

from collections.abc import Callable
from itertools import accumulate

import torch


def allocated_peak(work: Callable[[], object]) -> int:
    """Bytes that a function has allocated at its peak; what was allocated before is not counted."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    with (
        torch.inference_mode(),
        torch.profiler.profile(activities=activities, profile_memory=True) as profiler,
    ):
        work()
    events = profiler.profiler.kineto_results.events()
    changes = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")
    return max(accumulate(size for _, size in changes), default=0)
