"""Views without a model, for strategies on recorded or made-up numbers."""

from typing import Any, TypeVar

import torch
from torch import Tensor

from mustdrop.strategy import CacheView, PrefillView, VisionView

View = TypeVar("View", VisionView, PrefillView, CacheView)


def _missing(*args: Any, **kwargs: Any) -> Any:
    raise AssertionError("this view was not given what the strategy asks for")


def _view(kind: type[View], values: dict[str, Any]) -> View:
    """A view with these values and functions in the place of its attributes and methods."""
    unknown = [name for name in values if name not in {*dir(kind), *kind.__annotations__}]
    assert not unknown, f"{kind.__name__} has no {unknown}"
    body = {name: staticmethod(it) if callable(it) else it for name, it in values.items()}
    return type(f"Fake{kind.__name__}", (kind,), body)()


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def vision_view(hidden: Tensor, **given: Any) -> VisionView:
    """One image of ``hidden`` [tokens, dim]; anything else of the view by its name."""
    tokens = len(hidden)
    side = round(tokens**0.5)
    values: dict[str, Any] = {
        "block": "features", "grid": (side, side), "has_cls": True,
        "cells": torch.arange(tokens), "sizes": torch.ones(tokens),
        "hidden": hidden, "prompt_images": [hidden], "span": (0, tokens, tokens),
        "generator": _generator,
        "cls_attention": _missing, "queries_keys": _missing, "annotation": _missing,
        "count_macs": lambda macs: None,
    }  # fmt: skip
    return _view(VisionView, {**values, **given})


def prefill_view(vision: int, start: int = 35, text: int = 10, **given: Any) -> PrefillView:
    """A prompt of ``start`` tokens, ``vision`` vision tokens and ``text`` tokens behind them."""
    positions = torch.arange(start, start + vision)
    memo: dict[str, Tensor] = {}
    values: dict[str, Any] = {
        "layer": 1, "depth": 32, "prompt_index": 0, "grids": [(24, 24)],
        "visual_inputs": [(range(1), False)],
        "entered": vision, "entered_cells": vision,
        "protected": torch.zeros(vision, dtype=torch.bool),
        "protected_count": 0, "sizes": torch.ones(vision),
        "text": torch.arange(start + vision, start + vision + text),
        "inputs": torch.zeros(start + vision + text, 1),
        "positions": positions, "entered_positions": positions,
        "cell_coordinates": torch.full((vision, 3), -1), "hidden": torch.zeros(vision, 1),
        "attention": _missing, "received_attention": _missing, "generator": _generator,
        "cached": lambda name, compute: memo.setdefault(name, compute()),
        "log_score": lambda score: None, "count_macs": lambda macs: None,
    }  # fmt: skip
    return _view(PrefillView, {**values, **given})


def cache_view(vision: int, survives: Tensor, **given: Any) -> CacheView:
    """One layer's cache of ``vision`` vision tokens behind 35 others."""
    values: dict[str, Any] = {
        "layer": 3, "depth": 32, "prompt_index": 0, "positions": torch.arange(35, 35 + vision),
        "survives": survives, "survivors": int(survives.sum()),
        "protected": torch.zeros(vision, dtype=torch.bool), "generator": _generator,
    }  # fmt: skip
    return _view(CacheView, {**values, **given})
