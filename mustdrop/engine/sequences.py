"""Several sequences of a prompt (beams, samples): the prompt is prefilled once, then repeated.

``generate`` repeats every prompt before the prefill, once per sequence. Under a dropper the
language model gets one row per prompt, and its output and its cache are repeated afterwards. So a
prompt is scored once, has one ledger, and all of its sequences start from the same cache.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from transformers.utils.generic import ModelOutput


def first_rows(arguments: Mapping[str, Any], count: int) -> dict[str, Any]:
    """Arguments of the language model without the repeated rows.

    Args:
        arguments: Arguments of the call.
        count: Number of rows of each prompt, one after the other.
    """
    taken = dict(arguments)
    rows = len(taken["inputs_embeds"])

    def shorten(value: Any) -> Any:
        if isinstance(value, Mapping):  # a mask for each kind of layer
            return {kind: shorten(mask) for kind, mask in value.items()}
        return value[::count] if isinstance(value, Tensor) and len(value) == rows else value

    for name in ("inputs_embeds", "attention_mask"):
        taken[name] = shorten(taken.get(name))
    positions = taken.get("position_ids")
    if positions is not None and positions.shape[-2] == rows:  # otherwise all rows share one
        taken["position_ids"] = positions[..., ::count, :]
    return taken


def repeated(output: ModelOutput, count: int) -> ModelOutput:
    """Output of the language model with each row repeated; its cache is repeated elsewhere."""

    def repeat(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value.repeat_interleave(count, 0)
        return tuple(map(repeat, value)) if isinstance(value, tuple) else value

    return type(output)(**{name: repeat(value) for name, value in output.items()})
