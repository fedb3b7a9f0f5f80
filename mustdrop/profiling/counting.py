"""Operations, cache and attention kernels of one prefill, counted while it runs. Takes no time."""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from mustdrop.engine.transformers_api import cache_in

# Part of an operation's name -> name of the attention kernel.
KERNELS = {
    "scaled_dot_product_flash_attention_for_cpu": "flash (CPU)",
    "scaled_dot_product_flash_attention": "flash",
    "scaled_dot_product_efficient_attention": "efficient",
    "scaled_dot_product_cudnn_attention": "cuDNN",
    "scaled_dot_product_fused_attention_overrideable": "fused",
    "flash_attn": "flash_attn package",
}
MATH = "math"  # scaled dot-product attention that torch computes by plain products


def _distances(points: Any, others: Any, *args: Any, out_shape: Any = None, **kwargs: Any) -> int:
    return 2 * points[0] * others[0] * points[1]


def _singular_values(matrix: Any, *args: Any, out_shape: Any = None, **kwargs: Any) -> int:
    """Golub and Van Loan: 4 m n^2 for the values alone, m >= n."""
    return 4 * max(matrix) * min(matrix) ** 2


def _attention(query: Any, key: Any, *args: Any, out_shape: Any = None, **kwargs: Any) -> int:
    """Two products over the full square, as torch counts the kernels of other devices."""
    batch, heads, rows, width = query
    return 4 * batch * heads * rows * key[2] * width


def _grouped(rows: Any, matrices: Any, *args: Any, out_shape: Any = None, **kwargs: Any) -> int:
    """Each row is multiplied by the matrix of its group: the experts of a layer."""
    return 2 * rows[0] * matrices[1] * matrices[2]


# Operations that torch's counter leaves out.
UNSEEN = {
    torch.ops.aten._cdist_forward: _distances,
    torch.ops.aten._linalg_svd: _singular_values,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
}
if hasattr(torch.ops.aten, "_grouped_mm"):  # since torch 2.7
    UNSEEN[torch.ops.aten._grouped_mm] = _grouped


def counted_flops(work: Callable[[], object]) -> int:
    """Floating-point operations of a function, by torch's counter."""
    counter = FlopCounterMode(display=False, custom_mapping=UNSEEN)
    with torch.inference_mode(), counter:
        work()
    return counter.get_total_flops()


def attention_kernels(work: Callable[[], object]) -> dict[str, int]:
    """Number of calls of each attention kernel of a function; empty where torch used none.

    Eager attention is made of plain products of matrices and calls no kernel.
    """
    calls, kernels = _AttentionCalls(), _Kernels()
    with torch.no_grad(), calls, kernels:  # inference mode would hide the kernels
        work()
    counted = dict(kernels.calls)
    plain = calls.count - sum(n for name, n in counted.items() if name != KERNELS["flash_attn"])
    return {**counted, MATH: plain} if plain > 0 else counted


class _AttentionCalls(TorchFunctionMode):
    """Counts the calls of torch's scaled dot-product attention."""

    count = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func is torch.nn.functional.scaled_dot_product_attention
        return func(*args, **(kwargs or {}))


class _Kernels(TorchDispatchMode):
    """Counts the attention kernels that run."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kernel = next((name for part, name in KERNELS.items() if part in str(func)), None)
        if kernel is not None:
            self.calls[kernel] += 1
        return func(*args, **(kwargs or {}))


def cache_bytes(output: Mapping[str, Any]) -> int:
    """Bytes of the keys and values that a prefill left in its cache."""
    cache = cache_in(output)
    assert cache is not None
    return sum(states.nbytes for layer in cache.layers for states in (layer.keys, layer.values))
