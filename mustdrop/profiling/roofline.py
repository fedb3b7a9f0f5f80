"""Highest rates of the device, measured with one product of matrices and one copy.

The share of these rates that a model reaches says what limits it: a prefill close to the rate of
products is limited by arithmetic, a decoding step close to the rate of copies by memory.
"""

import statistics
from collections.abc import Callable

import torch

from mustdrop.profiling.device import Device

REPEATS = 7


def measured_rates(device: Device, dtype: torch.dtype) -> dict[str, float]:
    """Measure the rates of a device.

    Returns:
        flops_per_second of a product of square matrices; bytes_per_second of a copy, bytes that are
        read and bytes that are written both counted.
    """
    side, numbers = (8192, 2**28) if device.cuda else (1024, 2**24)
    left, right = (torch.randn(side, side, device=device.name, dtype=dtype) for _ in range(2))
    product = torch.empty_like(left)
    source = torch.zeros(numbers, device=device.name, dtype=dtype)
    target = torch.zeros_like(source)
    product_seconds = _seconds(device, lambda: torch.mm(left, right, out=product))
    copy_seconds = _seconds(device, lambda: target.copy_(source))
    return {
        "flops_per_second": 2 * side**3 / product_seconds,
        "bytes_per_second": 2 * source.nbytes / copy_seconds,
    }


def _seconds(device: Device, work: Callable[[], object]) -> float:
    """Median seconds of a call, after one as a warm-up."""
    times = []
    for _ in range(REPEATS + 1):
        device.wait()
        start = device.mark()
        work()
        end = device.mark()
        device.wait()
        times.append(device.milliseconds(start, end) / 1e3)
    return statistics.median(times[1:])
