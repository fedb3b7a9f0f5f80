"""The authors' MustDrop on three crops, through the adapter of LLaVA-NeXT.

The authors concatenate the crops of a picture. Transformers' LLaVA-NeXT packs them in another way:
it puts the crops side by side, row by row, with a newline after each row. ``flat_packing`` is the
authors' rule; the adapter takes whichever packing its model has.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from golden_mustdrop import IMAGE_TOKEN, configs, inputs, weights
from torch import Tensor
from transformers import LlavaNextConfig, LlavaNextForConditionalGeneration

SIDE, GRID = 336, 24
NEWLINE = 7.0  # value of all numbers of the newline's embedding
# arrays of the encoder and of the key tokens that it chooses, which no packing changes
ENCODER = (
    "lsm_", "vit_", "cls_attn", "key_index_topk", "image_features",
)  # fmt: skip


def load_next_model(folder: Path) -> LlavaNextForConditionalGeneration:
    """The authors' tiny model as a LLaVA-NeXT whose pictures have a small copy and two crops."""
    config = LlavaNextConfig(
        **configs(folder), image_token_index=IMAGE_TOKEN, vision_feature_layer=-2,
        vision_feature_select_strategy="default", image_grid_pinpoints=[[SIDE, 2 * SIDE]],
    )  # fmt: skip
    model = LlavaNextForConditionalGeneration(config).eval().float()
    newline = torch.full_like(model.model.image_newline.data, NEWLINE)
    state = {**weights(folder, model), "model.image_newline": newline}
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected and all("position_ids" in name for name in missing), (missing, unexpected)
    return model


def flat_packing(
    features: Sequence[Tensor], sizes: Tensor, vision_feature_select_strategy: str,
    image_newline: Tensor | None = None,
) -> tuple[list[Tensor], Tensor]:  # fmt: skip
    """The crops of each picture one after the other (the authors' llava_arch.py:347)."""
    flat = [crops.flatten(0, 1) for crops in features]
    return flat, torch.tensor([len(rows) for rows in flat])


def next_inputs(data: dict[str, np.ndarray], slots: int) -> dict[str, Tensor]:
    """The golden prompt with one picture of three crops, which fills so many slots."""
    prompt = inputs(data)
    ids = prompt["input_ids"][0]
    first = int((ids == IMAGE_TOKEN).nonzero()[0])
    text = ids[ids != IMAGE_TOKEN]
    ids = torch.cat([text[:first], torch.full((slots,), IMAGE_TOKEN), text[first:]])[None]
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "pixel_values": prompt["pixel_values"][None],
        "image_sizes": torch.tensor([[SIDE, 2 * SIDE]]),
    }


def spatial_slots() -> list[tuple[int, int] | None]:
    """(crop, raster cell) of each slot by transformers' packing, by a plain loop; None: newline."""
    slots: list[tuple[int, int] | None] = [(0, cell) for cell in range(GRID**2)]
    for row in range(GRID):
        slots += [(1 + column // GRID, row * GRID + column % GRID) for column in range(2 * GRID)]
        slots.append(None)
    return slots


def authors_cells(data: dict[str, np.ndarray]) -> np.ndarray:
    """Raster cell in whose place each of the authors' tokens stands, [crops, tokens]."""
    return np.concatenate([data["lsm_dst_patches"], data["lsm_unmerged_patches"]], 1)
