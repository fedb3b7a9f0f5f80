"""Our DivPrune on the authors' tensors; a layout for every file of their golden set."""

import numpy as np
import torch
from fake_views import vision_view
from torch import Tensor

from mustdrop.vision.divprune import DivPrune, cosine_distance, farthest

GIVEN = {"v", "ratio"}


def replay_divprune(stem: str, data: dict[str, np.ndarray]) -> dict[str, Tensor]:
    """Our values of the arrays that the file holds."""
    v = torch.from_numpy(data["v"])
    keep = round(float(data["ratio"]) * len(v))
    distance = cosine_distance(v)
    # where distances tie, the last bit decides: their own distances then, and their own rule
    ties = "dist" in data
    given = torch.from_numpy(data["dist"]) if ties else distance
    ours = {
        "selected": farthest(given, keep, allow_repeats=ties),
        "keep_sorted": DivPrune(keep).reduce(vision_view(v)).keep,
        "dist": distance,
    }
    return {name: value for name, value in ours.items() if name in data}
