"""The attention tap: passes on queries and keys of chosen modules, as attention gets them.

transformers looks an attention function up by name in ALL_ATTENTION_FUNCTIONS at each call. While
any tap is open, a wrapper replaces the entry of each implementation in use; it calls the probes of
the module that attends. Implementation names do not change, so masks are built as usual.

The table belongs to the process, so all taps share the wrappers: contexts may be nested, overlap
and run in several threads, and the table is restored when the last of them closes.
"""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from jaxtyping import Float
from torch import Tensor
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from mustdrop.engine.transformers_api import eager_attention, local_attention_functions

Probe = Callable[
    [Float[Tensor, "batch heads rows dim"], Float[Tensor, "batch kv_heads tokens dim"], float], None
]

_LOCK = threading.RLock()
_PROBES: dict[Any, tuple[Probe, ...]] = {}  # module -> its probes, in the order of the taps
_TAPS: dict[str, int] = {}  # implementation -> number of open taps that need its wrapper
_ORIGINAL: dict[str, Callable | None] = {}  # implementation -> entry before; None: there was none


@contextmanager
def attention_tap(probes: Mapping[Any, Probe]) -> Iterator[None]:
    """Call ``probes[module](query, key, scaling)`` right before each of these modules attends.

    Several taps of one module are called from the last that was opened to the first.

    Modifications: the entries of ALL_ATTENTION_FUNCTIONS for the probed modules' implementations,
        restored when the last tap closes. Eager attention is not in the table; its wrapper calls
        the function of the module's own file.
    """
    names = {module.config._attn_implementation for module in probes}
    with _LOCK:
        for name in names:
            _TAPS[name] = _TAPS.get(name, 0) + 1
            if _TAPS[name] == 1:
                _install(name)
        for module, probe in probes.items():
            _PROBES[module] = (*_PROBES.get(module, ()), probe)
    try:
        yield
    finally:
        with _LOCK:
            for module, probe in probes.items():
                _forget(module, probe)
            for name in names:
                _TAPS[name] -= 1
                if not _TAPS[name]:
                    _restore(name)


def _forget(module: Any, probe: Probe) -> None:
    """Remove the newest of a module's probes equal to ``probe``; later taps may have added more."""
    probes = list(_PROBES[module])
    del probes[max(index for index, other in enumerate(probes) if other == probe)]
    if probes:
        _PROBES[module] = tuple(probes)
    else:
        del _PROBES[module]


def _install(name: str) -> None:
    _ORIGINAL[name] = local_attention_functions().get(name)
    known = name in ALL_ATTENTION_FUNCTIONS
    ALL_ATTENTION_FUNCTIONS[name] = _Tapped(ALL_ATTENTION_FUNCTIONS[name] if known else _eager)


def _restore(name: str) -> None:
    local = local_attention_functions()
    before = _ORIGINAL.pop(name)
    del _TAPS[name]
    if isinstance(local.get(name), _Tapped):  # otherwise another function was registered: it stays
        del local[name]
        if before is not None:
            local[name] = before


class _Tapped:
    """An attention function that first calls the probes of the calling module."""

    def __init__(self, attend: Callable) -> None:
        self.attend = attend

    def __call__(
        self, module: Any, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any
    ) -> Any:
        for probe in reversed(_PROBES.get(module, ())):
            probe(query, key, kwargs["scaling"])
        return self.attend(module, query, key, value, *args, **kwargs)


def _eager(module: Any, *args: Any, **kwargs: Any) -> Any:
    """Call eager attention as the module's own forward would."""
    return eager_attention(module)(module, *args, **kwargs)
