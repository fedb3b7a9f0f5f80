"""The attention tap: hands over queries and keys of chosen modules, as attention gets them.

transformers looks an attention function up by name in ALL_ATTENTION_FUNCTIONS at each call; the tap
puts a wrapper there while a context is open. Implementation names stay as they are, so masks are
built as always.
"""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from jaxtyping import Float
from torch import Tensor
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

Probe = Callable[
    [Float[Tensor, "batch heads rows dim"], Float[Tensor, "batch kv_heads tokens dim"], float], None
]


@contextmanager
def attention_tap(probes: Mapping[Any, Probe]) -> Iterator[None]:
    """Call ``probes[module](query, key, scaling)`` right before each of these modules attends.

    Modifications: the entries of ALL_ATTENTION_FUNCTIONS for the probed modules' implementations,
        restored on exit. Eager attention is in no mapping; its wrapper calls the function of the
        module's own file.
    """

    def wrap(attend: Callable) -> Callable:
        def tapped(module, query, key, value, attention_mask, *args, **kwargs):
            probe = probes.get(module)
            if probe is not None:
                probe(query, key, kwargs["scaling"])
            return attend(module, query, key, value, attention_mask, *args, **kwargs)

        return tapped

    def eager(module, *args, **kwargs):
        return sys.modules[type(module).__module__].eager_attention_forward(module, *args, **kwargs)

    local = ALL_ATTENTION_FUNCTIONS._local_mapping
    saved = dict(local)
    try:
        for name in {module.config._attn_implementation for module in probes}:
            known = name in ALL_ATTENTION_FUNCTIONS
            ALL_ATTENTION_FUNCTIONS[name] = wrap(ALL_ATTENTION_FUNCTIONS[name] if known else eager)
        yield
    finally:
        local.clear()
        local.update(saved)
