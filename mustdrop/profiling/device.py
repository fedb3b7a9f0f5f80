"""Time marks and peak memory on a CPU or a CUDA device, and the settings of its arithmetic."""

import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

Mark = Any  # seconds on the CPU, an event on a CUDA device
PROCESS = Path("/proc/self")  # Linux's files about this process


@dataclass(frozen=True)
class Device:
    """A device to measure on.

    On a CUDA device a mark is an event in the stream: setting it does not make the host wait. Only
    :meth:`wait` does, and it is called outside the timed region.

    Attributes:
        name: Name that torch knows, ``cpu`` or ``cuda``.
    """

    name: str

    @property
    def cuda(self) -> bool:
        """Whether it is a CUDA device."""
        return self.name.startswith("cuda")

    def mark(self) -> Mark:
        """Mark the present moment in the device's order of work."""
        if not self.cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def wait(self) -> None:
        """Return when the device has finished everything."""
        if self.cuda:
            torch.cuda.synchronize()

    def milliseconds(self, start: Mark, end: Mark) -> float:
        """Time between two marks; call :meth:`wait` first."""
        return start.elapsed_time(end) if self.cuda else 1e3 * (end - start)

    def start_memory(self) -> int | None:
        """Bytes in use now; the peak counts from here.

        On a CUDA device they are those of torch's allocator, on the CPU the resident set of the
        process. None where the system does not count the resident set.
        """
        if self.cuda:
            torch.cuda.reset_peak_memory_stats()
            return torch.cuda.memory_allocated()
        with suppress(OSError):  # not permitted in some containers: the peak is then that of before
            (PROCESS / "clear_refs").write_text("5")
        return _resident("VmRSS")

    def peak_memory(self) -> int | None:
        """Highest number of bytes in use since :meth:`start_memory`; None where it is unknown."""
        return torch.cuda.max_memory_allocated() if self.cuda else _resident("VmHWM")

    def total_memory(self) -> int:
        """Bytes of memory that the device has."""
        if self.cuda:
            return torch.cuda.get_device_properties(0).total_memory
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")

    def free(self) -> None:
        """Give unused memory back to the device."""
        if self.cuda:
            torch.cuda.empty_cache()

    @contextmanager
    def synchronizing(self) -> Iterator[None]:
        """Context in which torch warns of every operation that makes the host wait.

        On the CPU nothing waits, so that there are no warnings.
        """
        if not self.cuda:
            yield
            return
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode("default")

    def clocks(self) -> dict[str, float]:
        """Present clock in MHz of the card, or of the first core of the processor; may be empty."""
        if self.cuda:
            # the package of the driver's library may be missing, and a part of a card has no clock
            with suppress(ImportError, RuntimeError, *_driver_errors()):
                return {"sm_mhz": float(torch.cuda.clock_rate())}
            return {}
        info = Path("/proc/cpuinfo")
        lines = info.read_text().splitlines() if info.exists() else []
        rates = [line.split(":")[1] for line in lines if line.startswith("cpu MHz")]
        return {"core_mhz": float(rates[0])} if rates else {}

    def describe(self) -> dict[str, Any]:
        """Name, memory and capability of the card, and torch's settings of its arithmetic."""
        matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
        settings = {
            "tf32_matmul": matmul.allow_tf32,
            "tf32_convolution": cudnn.allow_tf32,
            "float32_matmul_precision": torch.get_float32_matmul_precision(),
            "bf16_reduced_precision": matmul.allow_bf16_reduced_precision_reduction,
            "flash_sdp": torch.backends.cuda.flash_sdp_enabled(),
            "efficient_sdp": torch.backends.cuda.mem_efficient_sdp_enabled(),
            "math_sdp": torch.backends.cuda.math_sdp_enabled(),
            "cudnn_sdp": torch.backends.cuda.cudnn_sdp_enabled(),
            "threads": torch.get_num_threads(),
        }
        if not self.cuda:
            return {"name": processor_name(), "settings": settings}
        card = torch.cuda.get_device_properties(0)
        return {
            "name": torch.cuda.get_device_name(0), "memory_bytes": card.total_memory,
            "multiprocessors": card.multi_processor_count,
            "capability": list(torch.cuda.get_device_capability(0)),
            "cuda": torch.version.cuda, "cudnn": cudnn.version(), "settings": settings,
        }  # fmt: skip


def _driver_errors() -> list[type[Exception]]:
    """Errors of the driver's library; empty where its package is not installed."""
    with suppress(ImportError):
        return [import_module("pynvml").NVMLError]
    return []


def processor_name() -> str:
    """Name of the processor, or its architecture where the name is unknown."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _resident(name: str) -> int | None:
    """Bytes of a line of the process's status, such as ``VmRSS``; None where there is none."""
    path = PROCESS / "status"
    lines = path.read_text().splitlines() if path.exists() else []
    sizes = [line.split()[1] for line in lines if line.startswith(f"{name}:")]
    return 1024 * int(sizes[0]) if sizes else None


def exact_float32() -> None:
    """Switch TF32 off, so that float32 products are exact enough for the bar.

    TF32 is off for matrix products by default, but on for cuDNN's convolutions, and the encoder's
    patch embedding is one.
    """
    torch.set_float32_matmul_precision("highest")
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
