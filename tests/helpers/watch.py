"""Counts how often a call of a model waits for the device; on the CPU, by the operations."""

from collections import Counter

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from mustdrop import TokenDropper


class Watch(TorchDispatchMode):
    """Counts operations that make the host wait for the device, and the largest tensor made."""

    WAITS = (
        "nonzero", "_local_scalar_dense", "_unique2", "unique_dim", "unique_consecutive",
        "masked_select", "equal",
    )  # fmt: skip

    def __init__(self):
        super().__init__()
        self.waits, self.maps = Counter(), []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if name in self.WAITS:
            self.waits[name] += 1
        if name in ("index", "index_put", "index_put_"):  # a boolean index asks for its count
            index = [i for i in args[1] if i is not None]
            self.waits["boolean index"] += any(i.dtype == torch.bool for i in index)
        for made in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(made, torch.Tensor) and made.dim() >= 3:
                self.maps.append(tuple(made.shape))
        return out


def watched(model, inputs, dropper: TokenDropper | None) -> Watch:
    with torch.inference_mode(), Watch() as watch:
        if dropper is None:
            model(**inputs)
        else:
            with dropper.attach(model):
                model(**inputs)
    return watch
