"""Attention of new tokens while decoding, layer by layer, recorded from a running model.

The attention rows are recomputed from the queries and keys of each step, one row per layer, so that
the model's own attention is not changed. For one prompt at a time.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

from jaxtyping import Float
from torch import Tensor

from mustdrop.engine.tap import attention_tap
from mustdrop.functional import attention_rows
from mustdrop.models import ModelAdapter


@dataclass(eq=False)
class DecodeAttentionRecorder:
    """Attention of the tokens decoded since the last prefill.

    Attributes:
        steps: Layer -> number of tokens decoded.
        prompt: Layer -> attention to each cached token of the prompt, summed over the steps.
    """

    steps: dict[int, int] = field(default_factory=dict)
    prompt: dict[int, Float[Tensor, " cached"]] = field(default_factory=dict)

    def mean(self, layer: int) -> Float[Tensor, " cached"]:
        """Attention to each cached token of the prompt, mean over heads and steps."""
        return self.prompt[layer] / self.steps[layer]

    def _probe(self, layer: int, query: Tensor, key: Tensor, scaling: float) -> None:
        if query.shape[2] > 1:  # a prefill: the recorded steps belong to an earlier prompt
            self.steps.pop(layer, None)
            self.prompt.pop(layer, None)
            return
        if len(query) != 1:
            raise ValueError(
                f"decode attention is recorded for one prompt at a time, got {len(query)} prompts"
            )
        step = self.steps.get(layer, 0) + 1
        row = attention_rows(query[0], key[0], scaling, key.shape[2] - 1).float().mean((0, 1))
        row = row[: len(row) - step]
        self.prompt[layer] = row if step == 1 else self.prompt[layer] + row
        self.steps[layer] = step


@contextmanager
def record_decode_attention(adapter: ModelAdapter) -> Iterator[DecodeAttentionRecorder]:
    """Record attention while the context is open; open it outside a dropper's context."""
    recorder = DecodeAttentionRecorder()
    probes = {
        layer.self_attn: partial(recorder._probe, index)
        for index, layer in enumerate(adapter.layers)
    }
    with attention_tap(probes):
        yield recorder
