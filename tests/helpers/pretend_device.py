"""A device that is not there: CPU tensors that say they are elsewhere, so that mixing raises.

On the CPU every tensor fits every other one; on a GPU a tensor left on the host is an error. Here
tensors of the device "pretend" wrap CPU tensors: each operation runs on the CPU, but it is
refused where a GPU would refuse it, and operations that make the host wait are counted. It changes
the process that uses it (a backend is registered), so it is for a process of its own.
"""

import sys
import traceback
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

NAME = "pretend"
_setup_privateuseone_for_python_backend(NAME)
torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(..., device=) is a copy from the host

# Operations that take tensors of both devices; an index may be on the host.
MIXING = ("_to_copy", "copy_", "index", "index_put", "index_put_", "_index_put_impl_")
# Operations whose result the host has to wait for.
WAITING = (
    "_local_scalar_dense", "nonzero", "equal", "is_nonzero", "masked_select", "_linalg_svd",
    "_unique2", "unique_dim", "unique_consecutive",
)  # fmt: skip


class Pretend(torch.Tensor):
    """A CPU tensor that says it is on the device."""

    inner: torch.Tensor

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> "Pretend":
        made = torch.Tensor._make_wrapper_subclass(
            cls, inner.shape, dtype=inner.dtype, device=torch.device(NAME, 0),
            strides=inner.stride(), storage_offset=inner.storage_offset(),
        )  # fmt: skip
        made.inner = inner
        return made

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return run(func, args, kwargs or {})

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def __repr__(self, **_: Any) -> str:
        return f"Pretend({self.inner})"


class PretendDevice(TorchDispatchMode):
    """While it is on, the device exists; ``waits`` counts by source line of mustdrop."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: Counter[str] = Counter()
        WATCHING.append(self)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return run(func, args, kwargs or {})


WATCHING: list[PretendDevice] = []


def run(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """One operation: refused, or done on the CPU and wrapped again."""
    name = func.overloadpacket.__name__
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
    here = [tensor for tensor in tensors if isinstance(tensor, Pretend)]
    host = [tensor for tensor in tensors if not isinstance(tensor, Pretend)]
    if here and any(tensor.dim() for tensor in host) and name not in MIXING:
        raise RuntimeError(f"Expected all tensors to be on the same device: {func}, {source()}")
    device = kwargs.get("device")
    stays = bool(here) if device is None else torch.device(device).type == NAME
    if name == "copy_":
        stays = isinstance(args[0], Pretend)
    crosses = name in MIXING and here and bool(host)
    # A copy to the device goes on by itself where that is wished for; one to the host never does.
    copied = name == "_to_copy" and stays != bool(here)
    copied = copied and not (stays and kwargs.get("non_blocking"))
    if (name in WAITING and here) or crosses or copied:
        for watcher in WATCHING:
            watcher.waits[source()] += 1
    wrappers = {id(tensor.inner): tensor for tensor in here}

    def lower(leaf: Any) -> Any:
        if isinstance(leaf, torch.device):
            return torch.device("cpu")
        return leaf.inner if isinstance(leaf, Pretend) else leaf

    def lift(leaf: Any) -> Any:
        if not isinstance(leaf, torch.Tensor):
            return leaf
        if not stays:  # a copy of its own, also where the CPU sees nothing to copy
            return leaf.clone() if id(leaf) in wrappers else leaf
        return wrappers[id(leaf)] if id(leaf) in wrappers else Pretend(leaf)

    return tree_map(lift, func(*tree_map(lower, args), **tree_map(lower, kwargs)))


def source() -> str:
    """The innermost line of mustdrop on the stack, or that of the caller."""
    stack = traceback.extract_stack(sys._getframe(1))
    own = [frame for frame in stack if "/mustdrop/" in frame.filename]
    frame = (own or stack)[-1]
    return f"{frame.filename.rpartition('/mustdrop/')[2]}:{frame.lineno} {frame.line}"


def moved(value: Any) -> Any:
    """A module or a mapping of tensors on the device; a module is changed in place."""
    if isinstance(value, Mapping):
        return {name: Pretend(tensor) for name, tensor in value.items()}
    for module in value.modules():
        for name, weight in module._parameters.items():
            if weight is not None:
                module._parameters[name] = nn.Parameter(Pretend(weight.data), requires_grad=False)
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = Pretend(buffer)
    return value
