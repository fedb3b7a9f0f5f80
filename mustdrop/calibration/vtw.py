"""VTW's search for the layer from which no vision token is needed. Knows no benchmark.

For each K, all vision tokens are dropped at the input of layer K, and the distribution of the next
token is compared with that of the full model.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from mustdrop.dropper import TokenDropper
from mustdrop.prefill.vtw import VTW

FIRST = 5  # the authors search no earlier layer


def divergence(
    full: Float[Tensor, "prompts vocab"], withdrawn: Float[Tensor, "prompts vocab"]
) -> Float[Tensor, " prompts"]:
    """KL(withdrawn || full) of the distributions of the next token, from logits, in nats.

    Source: VTW, arXiv:2405.05803; lzhxmu/VTW a3d8cfc3, VTW.py:104-107, where KLDivLoss takes the
        full distribution's logarithm first.
    """
    log_full, log_withdrawn = full.float().log_softmax(-1), withdrawn.float().log_softmax(-1)
    return (log_withdrawn.exp() * (log_withdrawn - log_full)).sum(-1)


def first_within(divergences: Sequence[float], eta: float, first: int = FIRST) -> int | None:
    """First K whose divergence is at most ``eta``; None if there is none.

    Source: lzhxmu/VTW a3d8cfc3, lmms_eval/__main__.py:398-400.

    Args:
        divergences: Mean divergence over prompts for K = ``first``, ``first`` + 1, ...
        eta: Largest divergence allowed, in nats.
        first: K of the first divergence.
    """
    return next((k for k, value in enumerate(divergences, first) if value <= eta), None)


@torch.inference_mode()
def divergences(
    model: Any,
    batches: Sequence[Mapping[str, Any]],
    depth: int,
    first: int = FIRST,
    tick: Callable[[], None] = lambda: None,
) -> Float[Tensor, "layers prompts"]:
    """KL(withdrawn || full) of each prompt for each K from ``first`` on.

    Runs one prefill per K and batch, and one of the full model per batch.

    Args:
        model: Model that a dropper can be attached to.
        batches: Inputs of ``generate``.
        depth: Number of decoder layers.
        first: First K.
        tick: Called after each prefill.

    Raises:
        ValueError: If the model has no such layer, or there are no prompts.
    """
    if not 0 <= first < depth:
        raise ValueError(f"first K must be in [0, {depth - 1}], got {first}")
    if not batches:
        raise ValueError("there are no prompts to compare distributions on")

    def columns() -> Iterator[Tensor]:
        for inputs in batches:
            full = _next_token(model, TokenDropper(), inputs)
            tick()
            column = []
            for layer in range(first, depth):
                withdrawn = _next_token(model, TokenDropper(prefill=VTW(layer - 1)), inputs)
                column.append(divergence(full, withdrawn))
                tick()
            yield torch.stack(column)

    return torch.cat(list(columns()), 1)


def _next_token(
    model: Any, dropper: TokenDropper, inputs: Mapping[str, Any]
) -> Float[Tensor, "prompts vocab"]:
    """Logits of the token behind each prompt."""
    with dropper.attach(model) as run:
        out = model.generate(
            **inputs, do_sample=False, max_new_tokens=1, output_logits=True,
            return_dict_in_generate=True,
        )  # fmt: skip
    run.require_finite()
    return out.logits[0]
