"""Our VTW on the authors' recorded hidden states and logits; every layout of their set."""

import numpy as np
import torch
from fake_views import prefill_view
from torch import Tensor

from mustdrop.calibration.vtw import FIRST, divergence, first_within
from mustdrop.prefill.vtw import VTW

GIVEN = {"hidden", "sys_len", "img_len", "logits_full", "logits_withdrawn", "eta"}


def replay_vtw(data: dict[str, np.ndarray]) -> dict[str, Tensor]:
    """Our values of the arrays that the file holds."""
    return _search(data) if "logits_full" in data else _withdraw(data)


def _withdraw(data: dict[str, np.ndarray]) -> dict[str, Tensor]:
    hidden = torch.from_numpy(data["hidden"])
    start, images = int(data["sys_len"]), int(data["img_len"])
    tokens = hidden.shape[1]
    view = prefill_view(images, start, tokens - start - images, layer=14)
    kept = VTW(layer=14).reduce(view).keep
    sequence = torch.arange(tokens)
    keep = torch.cat([sequence[:start], start + kept, sequence[start + images :]])
    return {
        "hidden_out": hidden[:, keep],
        "pos_keep": keep[None],
        "pos_reindex": torch.arange(len(keep))[None],
    }


def _search(data: dict[str, np.ndarray]) -> dict[str, Tensor]:
    full = torch.from_numpy(data["logits_full"])
    divergences = torch.cat(
        [divergence(full, withdrawn) for withdrawn in torch.from_numpy(data["logits_withdrawn"])]
    )
    chosen = first_within(divergences.tolist(), float(data["eta"]), FIRST)
    return {"kl": divergences, "k": torch.tensor(-1 if chosen is None else chosen)}
