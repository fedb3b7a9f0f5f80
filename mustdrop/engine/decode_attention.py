"""What new tokens attend to while decoding, layer by layer; read beside a running model.

Rows of attention are formed anew from the queries and keys of each step, one row a layer, so that
the model keeps its own attention. For one prompt at a time.
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
        steps: Layer -> tokens decoded.
        prompt: Layer -> attention to each cached token of the prompt, summed over the steps.
    """

    steps: dict[int, int] = field(default_factory=dict)
    prompt: dict[int, Float[Tensor, " cached"]] = field(default_factory=dict)

    def mean(self, layer: int) -> Float[Tensor, " cached"]:
        """Attention to each cached token of the prompt, mean over heads and steps."""
        return self.prompt[layer] / self.steps[layer]

    def _probe(self, layer: int, query: Tensor, key: Tensor, scaling: float) -> None:
        if query.shape[2] > 1:  # a prefill: what was decoded before is another prompt's
            self.steps.pop(layer, None)
            self.prompt.pop(layer, None)
            return
        if len(query) != 1:
            raise ValueError(f"decoding is watched one prompt at a time, got {len(query)}")
        step = self.steps.get(layer, 0) + 1
        row = attention_rows(query[0], key[0], scaling, key.shape[2] - 1).float().mean((0, 1))
        row = row[: len(row) - step]
        self.prompt[layer] = row if step == 1 else self.prompt[layer] + row
        self.steps[layer] = step


@contextmanager
def record_decode_attention(adapter: ModelAdapter) -> Iterator[DecodeAttentionRecorder]:
    """Watch what the model decodes while the context is open; open it around a dropper's."""
    gaze = DecodeAttentionRecorder()
    probes = {layer.self_attn: partial(gaze._probe, at) for at, layer in enumerate(adapter.layers)}
    with attention_tap(probes):
        yield gaze
