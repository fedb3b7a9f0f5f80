"""Our FastV on the authors' recorded attention rows; a layout for every file of their golden
set."""

import numpy as np
import torch
from fake_views import prefill_view
from torch import Tensor

from mustdrop.prefill.fastv import FastV

SYSTEM = 35  # tokens before the image, in every golden case


def replay_fastv(data: dict[str, np.ndarray]) -> dict[str, Tensor]:
    """Our values of the arrays that the file holds."""
    row = torch.from_numpy(data["att_lastrow_heads"])
    start = int(data.get("sys_len", SYSTEM))
    vision = int(data.get("img_len", 576))
    attention = row[:, None, start : start + vision]
    seen: dict[str, Tensor] = {}
    view = prefill_view(
        vision, start, row.shape[1] - start - vision,
        attention=lambda rows, of="this": attention, log_score=lambda s: seen.update(score=s),
    )  # fmt: skip
    kept = FastV(keep=_count(data, row.shape[1] - vision), layer=1).reduce(view).keep
    sequence = torch.arange(row.shape[1])
    keep = torch.cat([sequence[:start], start + kept, sequence[start + vision :]])
    ours: dict[str, Tensor] = {"score": seen["score"]}
    if "keymask" in data:
        mask = torch.zeros(1, row.shape[1], dtype=torch.bool)
        mask[0, keep] = True
        ours["keymask"] = mask
    else:
        ours |= {
            "keep": keep,
            "position_ids": keep[None],
            "cache_position": torch.arange(len(keep)),
            "topk_desc": start + kept[seen["score"][kept].argsort(descending=True, stable=True)],
            "mask_shape": torch.tensor([1, 1, len(keep), len(keep)]),
        }
    if "hidden" in data:
        ours["hidden_out"] = torch.from_numpy(data["hidden"])[:, keep]
    return {name: value for name, value in ours.items() if name in data}


def _count(data: dict[str, np.ndarray], others: int) -> int:
    """Vision tokens kept: the ranked count, or what the kept sequence leaves for them."""
    if "rank" in data:
        return int(data["rank"])
    return len(data["keep"]) - others
