"""Our VisionZip on the authors' tensors; a layout for every file of their golden set."""

import numpy as np
import torch
from fake_views import vision_view
from torch import Tensor

from mustdrop.vision.visionzip import VisionZip

GIVEN = {
    "cls_attn", "hidden", "metric", "dominant", "contextual", "feat", "keep_idx", "width", "height",
    "image_newline",
}  # fmt: skip


def replay_visionzip(stem: str, data: dict[str, np.ndarray]) -> dict[str, Tensor]:
    """Our values of the arrays that the file holds."""
    held = {name: torch.from_numpy(np.asarray(value)) for name, value in data.items()}
    if "keep_idx" in held:
        return {"out": _restored(held)}
    dominant = int(held["dominant"])
    strategy = VisionZip(dominant, int(held["contextual"]))
    out, indices = [], []
    arrays = (held["cls_attn"], held["hidden"], held["metric"])
    for heads, hidden, metric in zip(*arrays, strict=True):
        view = vision_view(
            hidden[1:],
            cls_attention=lambda block, heads=heads: heads[:, 1:],
            queries_keys=lambda block, metric=metric: (metric[None], metric[None]),
        )
        decision = strategy.reduce(view)
        out.append(decision(hidden[1:], hidden[0]))
        indices.append(torch.cat([torch.zeros(1).long(), decision.keep[1:dominant] + 1]))
    return {"out": torch.stack(out), "all_indices": torch.stack(indices)}


def _restored(held: dict[str, Tensor]) -> Tensor:
    """The code's order for LLaVA-NeXT's tiles, which we do not have.

    All dominant patches in the raster of the whole image, then every tile's [CLS], then their
    contextual tokens.
    """
    feat, width = held["feat"], int(held["width"])
    patches = held["keep_idx"].sort().values[:, 1:] - 1  # [CLS] is 0
    tile = torch.arange(len(feat))[:, None]
    row = tile // width * 24 + patches // 24
    column = tile % width * 24 + patches % 24
    order = (row * 24 * width + column).flatten().argsort()
    kept = feat[:, 1 : 1 + patches.shape[1]].flatten(0, 1)[order]
    return torch.cat([kept, feat[:, 0], feat[:, 1 + patches.shape[1] :].flatten(0, 1)])
