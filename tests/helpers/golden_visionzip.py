"""Our VisionZip on the authors' tensors; a layout for every file of their golden set."""

import numpy as np
import torch
from fake_views import vision_view
from real_grids import PATCH, SIDE, llava_next
from torch import Tensor

from mustdrop.models import adapter_for
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
    """The code's order for LLaVA-NeXT's tiles.

    All dominant patches in the raster of the whole image, then every tile's [CLS], then their
    contextual tokens.
    """
    feat, kept = held["feat"], held["keep_idx"]
    slots = restored_slots(kept, rows=int(held["height"]), columns=int(held["width"]))
    dominant = feat[:, 1 : kept.shape[1]].flatten(0, 1)[slots.argsort()]
    return torch.cat([dominant, feat[:, 0], feat[:, kept.shape[1] :].flatten(0, 1)])


def restored_slots(kept: Tensor, rows: int, columns: int) -> Tensor:
    """Slot of each kept patch of each tile, in raster order within a tile, by our adapter.

    Args:
        kept: Kept tokens of each tile; [CLS] is 0.
        rows: Number of tiles along the picture's height.
        columns: Number of tiles along its width.
    """
    adapter = adapter_for(llava_next())
    size = torch.tensor([[rows * SIDE, columns * SIDE]])
    pixels = torch.empty(1, 1 + rows * columns, 3, SIDE, SIDE, device="meta")
    images = adapter.visual_inputs({"pixel_values": pixels, "image_sizes": size})
    (shown,) = images[adapter.model.config.image_token_id]
    tile = torch.arange(1, 1 + len(kept))[:, None]  # behind the small copy
    cells = tile * (SIDE // PATCH) ** 2 + kept.sort().values[:, 1:] - 1
    return (shown.cells == cells.flatten()[:, None]).nonzero()[:, 1]
