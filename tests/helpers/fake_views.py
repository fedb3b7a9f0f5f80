"""Views without a model, for strategies on recorded or made-up numbers."""

from typing import Any

import torch
from torch import Tensor

from mustdrop.strategy import CacheView, PrefillView, VisionView


def _missing(*args: Any) -> Any:
    raise AssertionError("this view was not given what the strategy asks for")


def vision_view(hidden: Tensor, **given: Any) -> VisionView:
    """One image of ``hidden`` [tokens, dim]; anything else of the view by its field's name."""
    tokens = len(hidden)
    side = round(tokens**0.5)
    values: dict[str, Any] = {
        "block": "features", "grid": (side, side), "has_cls": True,
        "patch_index": torch.arange(tokens), "sizes": torch.ones(tokens),
        "get_span": lambda: (0, tokens),
        "get_hidden": lambda: hidden, "get_crops": lambda: [hidden],
        "get_cls_attention": _missing, "get_queries_keys": _missing,
        "get_generator": lambda seed: torch.Generator().manual_seed(seed),
        "get_known": _missing, "count_macs": lambda macs: None,
    }  # fmt: skip
    return VisionView(**{**values, **given})


def prefill_view(vision: int, start: int = 35, text: int = 10, **given: Any) -> PrefillView:
    """A prompt of ``start`` tokens, ``vision`` vision tokens and ``text`` tokens behind them."""
    positions = torch.arange(start, start + vision)
    memo: dict[str, Tensor] = {}
    values: dict[str, Any] = {
        "layer": 1, "depth": 32, "prompt_index": 0, "grid": (24, 24), "image_count": 1,
        "entered": vision, "protected": torch.zeros(vision, dtype=torch.bool),
        "protected_count": 0, "sizes": torch.ones(vision),
        "text": torch.arange(start + vision, start + vision + text),
        "inputs": torch.zeros(start + vision + text, 1),
        "get_positions": lambda: positions, "get_entered_positions": lambda: positions,
        "get_cells": lambda: torch.full((vision, 3), -1),
        "get_hidden": lambda: torch.zeros(vision, 1),
        "get_attention": _missing, "get_received": _missing,
        "get_generator": lambda seed: torch.Generator().manual_seed(seed),
        "get_once": lambda name, compute: memo.setdefault(name, compute()),
        "log_score": lambda score: None, "count_macs": lambda macs: None,
    }  # fmt: skip
    return PrefillView(**{**values, **given})


def cache_view(vision: int, survives: Tensor, **given: Any) -> CacheView:
    """One layer's cache of ``vision`` vision tokens behind 35 others."""
    values: dict[str, Any] = {
        "layer": 3, "depth": 32, "prompt_index": 0, "positions": torch.arange(35, 35 + vision),
        "survives": survives, "survivors": int(survives.sum()),
        "protected": torch.zeros(vision, dtype=torch.bool),
        "get_generator": lambda seed: torch.Generator().manual_seed(seed),
    }  # fmt: skip
    return CacheView(**{**values, **given})
