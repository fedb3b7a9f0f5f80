"""Checks of a loaded model's weights, and of the end token that it shares with its tokenizer."""

from typing import Any

import torch
from torch import nn

from experiments.doctor.findings import Finding

SHOWN = 3  # names of weights in a finding


def weights(model: nn.Module) -> list[Finding]:
    """Findings about matrices that are not finite, or hold a single value; empty if all are sound.

    Loading never makes such matrices: the file holds them, after a failed conversion or copy.
    """
    broken: dict[str, list[str]] = {"numbers that are not finite": [], "a single value": []}
    for name, values in model.named_parameters():
        if values.dim() < 2 or not values.numel():
            continue
        low, high = (end.item() for end in torch.aminmax(values.detach()))
        if not abs(low) < float("inf") or not abs(high) < float("inf"):
            broken["numbers that are not finite"].append(name)
        elif low == high:
            broken["a single value"].append(name)
    return [
        Finding(
            "weights",
            "wrong",
            f"{len(names)} matrices of the checkpoint hold {fault} ({', '.join(names[:SHOWN])}"
            f"{', ...' if names[SHOWN:] else ''}): the file is damaged, or its conversion failed",
            {"weights": names},
        )
        for fault, names in broken.items()
        if names
    ]


def end_token(model: Any, tokenizer: Any) -> list[Finding]:
    """A finding if answers end at no special token of the tokenizer."""
    ends = model.generation_config.eos_token_id
    ends = [] if ends is None else ends if isinstance(ends, list) else [ends]
    special = {tokenizer.eos_token_id, *tokenizer.all_special_ids}
    special |= {index for index, token in tokenizer.added_tokens_decoder.items() if token.special}
    if special & {*ends}:
        return []
    shown = [f"{tokenizer.convert_ids_to_tokens(end)!r} ({end})" for end in ends]
    text = (
        f"answers end at {' or '.join(shown) or 'no token'} by generation_config.json, which is no "
        f"special token of the tokenizer; its end token is {tokenizer.eos_token!r} "
        f"({tokenizer.eos_token_id}): the tokenizer or this file is another model's"
    )
    return [Finding("end token", "wrong", text, {"model": ends})]
