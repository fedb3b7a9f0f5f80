"""Versions, device and settings of the machine, and sentences about what does not fit.

Reads versions without importing the packages, so that it works even if an import fails.
"""

import hashlib
import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

TESTED = {"torch": "2.13", "transformers": "5.23"}
# package -> name of the module
NEEDS = {"einops": "einops", "jaxtyping": "jaxtyping", "wadler-lindig": "wadler_lindig"}
PACKAGES = ("torch", "transformers", "numpy", *NEEDS, "flash-attn", "accelerate", "triton")


def versions() -> dict[str, str | None]:
    """Read the installed versions of the relevant packages; None for a missing one."""
    return {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}}


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        module = NEEDS.get(package, package.replace("-", "_"))
        return "unknown" if importlib.util.find_spec(module) else None


def misfits(installed: Mapping[str, str | None]) -> list[str]:
    """Write a sentence for every version that does not fit; the cells run anyway and may fail.

    Args:
        installed: Package -> version, as from :func:`versions`.
    """
    sentences = []
    if _numbers(installed["python"]) < (3, 11):
        sentences.append(f"Python 3.11 or later is needed; this is {installed['python']}.")
    for package, least in (("torch", (2, 6)), ("transformers", (5,))):
        version = installed[package]
        needed = f"{package} {'.'.join(map(str, least))}{'.x' if least == (5,) else ' or later'}"
        if version is None:
            sentences.append(f"{needed} is needed; it is not installed.")
        elif _numbers(version) < least or (least == (5,) and _numbers(version)[:1] != (5,)):
            sentences.append(f"{needed} is needed; {version} is installed.")
        elif _numbers(version)[:2] != _numbers(TESTED[package]):
            sentences.append(
                f"mustdrop is tested with {package} {TESTED[package]}; {version} is installed. "
                "A cell that does not work with it reports an error."
            )
    missing = [package for package in (*NEEDS, "numpy") if installed[package] is None]
    if missing:
        sentences.append(
            f"{', '.join(missing)} missing: run `make gpu-needs` on a machine with a network, copy "
            "the folder .gpu-needs with the checkout, and start with `make gpu`."
        )
    return sentences


def _numbers(version: str | None) -> tuple[int, ...]:
    """Parse 2.11.0+cu130 as (2, 11); an unknown version counts as a new one."""
    numbers = re.findall(r"\d+", (version or "").split("+")[0])
    return tuple(map(int, numbers[:2])) or (sys.maxsize,)


def machine() -> dict[str, Any]:
    """Describe processor, cores, system and, if nvidia-smi exists, the cards."""
    return {
        "processor": _processor(), "cores": os.cpu_count(), "system": platform.system(),
        "kernel": platform.release(), "nvidia_smi": nvidia_smi(),
    }  # fmt: skip


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def device_name(device: str) -> str:
    """Name of the first card, or of the processor, without torch."""
    cards = nvidia_smi()
    if device == "cuda":
        return cards[0].partition(",")[0] if cards else device
    return _processor()


def nvidia_smi() -> list[str]:
    """Read one line per card: name, driver, clocks in MHz, temperature, power in W, memory."""
    command = shutil.which("nvidia-smi")
    if command is None:
        return []
    fields = "name,driver_version,clocks.sm,clocks.mem,temperature.gpu,power.draw,memory.total"
    query = [command, f"--query-gpu={fields}", "--format=csv,noheader"]
    try:
        result = subprocess.run(query, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return [f"nvidia-smi did not answer: {type(error).__name__}"]
    return (result.stdout or result.stderr).strip().splitlines()


def code(root: Path) -> dict[str, str | None]:
    """Hash the sources that run, and read the commit; None without git."""
    sources = hashlib.sha256()
    for folder in ("mustdrop", "experiments/gpu", "experiments/profiling"):
        for path in sorted((root / folder).rglob("*.py")):
            sources.update(path.relative_to(root).as_posix().encode() + path.read_bytes())
    commit = None
    if shutil.which("git") is not None and (root / ".git").exists():
        command = ["git", "-C", str(root), "rev-parse", "HEAD"]
        commit = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    return {"sources": sources.hexdigest()[:16], "commit": commit or None}


def has_cuda() -> bool:
    """Whether torch sees a CUDA device; True if torch fails, so that the cells record why."""
    try:
        import torch
    except Exception:  # any error of a broken installation, which every cell records
        return True
    return torch.cuda.is_available()


def describe(record: Mapping[str, Any]) -> Sequence[str]:
    """Describe a record's device, versions and command in a few lines."""
    installed, device = record["versions"], record.get("device", {})
    name = device.get("name", record["options"]["device"])
    packages = ", ".join(f"{key} {installed[key]}" for key in ("python", "torch", "transformers"))
    smi = record["machine"]["nvidia_smi"]
    return [
        f"{name} · {packages}",
        f"sources {record['code']['sources']} · started {record['started']} · {record['command']}",
        *(f"nvidia-smi: {line}" for line in smi),
        *record["misfits"],
    ]
