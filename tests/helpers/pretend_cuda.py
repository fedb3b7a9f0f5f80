"""The pretend device in the place of a CUDA device, with the calls of torch.cuda that are used.

The measurements take their paths for CUDA: marks are events, memory is the allocator's, and torch
warns of operations that wait. It shows no time and no kernel. Importing it changes the process, so
that it is for a process of its own.
"""

import time
import warnings
from types import SimpleNamespace
from typing import Any, ClassVar

import torch
from pretend_device import NAME, Pretend, PretendDevice

from mustdrop.profiling import device as devices

MESSAGE = "called a synchronizing CUDA operation"
cuda: Any = torch.cuda
calls: list[str] = []


class Event:
    """A moment of the host."""

    def __init__(self, enable_timing: bool = False) -> None:
        assert enable_timing

    def record(self) -> None:
        self.seconds = time.perf_counter()

    def elapsed_time(self, end: "Event") -> float:
        return 1e3 * (end.seconds - self.seconds)


class Generator(torch.Generator):
    """A generator of the CPU, whatever the device."""

    def __new__(cls, device: Any = None) -> Any:
        return super().__new__(cls)


class Mode(PretendDevice):
    """The device, which warns of operations that wait in the debug mode."""

    warns: ClassVar[bool] = False

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        before = sum(self.waits.values())
        result = super().__torch_dispatch__(func, types, args, kwargs)
        if Mode.warns and sum(self.waits.values()) > before:
            warnings.warn(MESSAGE, stacklevel=2)
        return result


def called(name: str, result: Any = None) -> Any:
    """A function that keeps a list of its calls."""

    def function(*args: Any, **kwargs: Any) -> Any:
        calls.append(name)
        return result

    return function


def debug_mode(mode: str) -> None:
    Mode.warns = mode == "warn"


def attend(query: Any, key: Any, value: Any, attn_mask: Any = None, **kwargs: Any) -> Any:
    """torch's attention on the CPU; all tensors must be on one device."""
    given = [part for part in (query, key, value, attn_mask) if part is not None]
    here = [isinstance(part, Pretend) for part in given]
    if not any(here):
        return plain_attention(query, key, value, attn_mask, **kwargs)
    if not all(here):
        raise RuntimeError("Expected all tensors to be on the same device: attention")
    query, key, value, mask = (
        part.inner if part is not None else None for part in (query, key, value, attn_mask)
    )
    return Pretend(plain_attention(query, key, value, mask, **kwargs))


def tensor(data: Any, *args: Any, **kwargs: Any) -> Any:
    """A tensor from numbers, also where a model gives them as tensors of the device."""
    if isinstance(data, (list, tuple)):
        data = [part.tolist() if isinstance(part, Pretend) else part for part in data]
    return plain_tensor(data, *args, **kwargs)


plain_tensor, torch.tensor = torch.tensor, tensor
plain_attention = torch.nn.functional.scaled_dot_product_attention
torch.nn.functional.scaled_dot_product_attention = attend
torch.Generator = Generator
torch.inference_mode = torch.no_grad
card = SimpleNamespace(total_memory=80 * 2**30, multi_processor_count=132, name="Pretended")
for name, function in {
    "Event": Event, "is_available": lambda: True, "_lazy_init": lambda: None,
    "synchronize": called("synchronize"), "empty_cache": called("empty_cache"),
    "reset_peak_memory_stats": called("reset_peak_memory_stats"),
    "memory_allocated": lambda *_: 2**20, "max_memory_allocated": lambda *_: 2**21,
    "get_device_properties": lambda *_: card, "get_device_name": lambda *_: card.name,
    "get_device_capability": lambda *_: (9, 0), "set_sync_debug_mode": debug_mode,
}.items():  # fmt: skip
    setattr(cuda, name, function)
devices.Device.cuda = property(lambda device: device.name == NAME)  # pyright: ignore
