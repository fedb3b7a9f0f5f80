"""Checks of the machine and of the loaded model: device, dtype, attention kernel, versions."""

from collections.abc import Mapping
from typing import Any

import torch

from experiments.doctor.findings import Finding
from mustdrop.profiling.counting import attention_kernels
from mustdrop.profiling.device import Device
from mustdrop.provenance.fingerprint import library_versions


def machine(device: Device) -> Finding:
    """Device, memory and versions."""
    described = device.describe()
    versions = library_versions()
    gigabytes = device.total_memory() / 1e9
    text = (
        f"{described['name']}, {gigabytes:.0f} GB, {torch.get_num_threads()} threads; "
        f"torch {versions['torch']}, transformers {versions['transformers']}, "
        f"lmms-eval {versions['lmms-eval']}"
    )
    return Finding("machine", "ok", text, {"device": described, "versions": versions})


def kernels(model: Any, inputs: Mapping[str, Any], attention: str) -> Finding:
    """Attention kernels that one prefill calls, and the dtype of the weights."""
    calls = attention_kernels(lambda: model(**inputs))
    dtype = str(model.dtype).removeprefix("torch.")
    used = ", ".join(f"{name} x {count}" for name, count in calls.items())
    facts = {"dtype": dtype, "attention": attention, "kernels": calls}
    if not calls:
        text = f"{dtype}; {attention}: plain products of matrices, no kernel"
        return Finding("attention", "ok" if attention == "eager" else "note", text, facts)
    return Finding("attention", "ok", f"{dtype}; {attention} calls {used} in a prefill", facts)
