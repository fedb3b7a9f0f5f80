"""Our selections by [CLS] attention on the authors' tensors: FasterVLM, VisPruner, HiRED."""

import numpy as np
import torch
from fake_views import vision_view
from torch import Tensor

from mustdrop.strategy import VisionStrategy
from mustdrop.vision.cls_topk import ClsTopK
from mustdrop.vision.vispruner import VisPruner

GIVEN = {"cls_attn", "feat", "T", "cls_row", "ratio"}


def replay_fastervlm(stem: str, data: dict[str, np.ndarray]) -> dict[str, Tensor]:
    """Our masks of kept patches."""
    strategy = ClsTopK(int(data["T"]), block=-2)
    return {"mask": torch.stack([_mask(strategy, heads) for heads in data["cls_attn"]])}


def replay_vispruner(stem: str, data: dict[str, np.ndarray]) -> dict[str, Tensor]:
    """Our masks of kept patches."""
    strategy, arrays = VisPruner(int(data["T"])), (data["cls_attn"], data["feat"])
    each = [_mask(strategy, heads, feat) for heads, feat in zip(*arrays, strict=True)]
    return {"mask": torch.stack(each)}


def replay_hired(stem: str, data: dict[str, np.ndarray]) -> dict[str, Tensor]:
    """Our mask of the patches kept of one image."""
    heads = data["cls_row"][:, 1:]
    strategy = ClsTopK(int(heads.shape[1] * float(data["ratio"])), block=-2)
    return {"mask": _mask(strategy, heads)}


def _mask(strategy: VisionStrategy, heads: np.ndarray, feat: np.ndarray | None = None) -> Tensor:
    attention = torch.from_numpy(heads)
    tokens = attention.shape[1]
    hidden = torch.zeros(tokens, 1) if feat is None else torch.from_numpy(feat)
    view = vision_view(hidden, cls_attention=lambda block: attention)
    return torch.zeros(tokens).bool().index_fill(0, strategy.reduce(view).keep, True)
