"""Our PruMerge and PruMerge+ on the authors' tensors; a layout for every file of their set."""

import numpy as np
import torch
from fake_views import vision_view
from torch import Tensor

from mustdrop.functional import complement, outliers
from mustdrop.strategy import VisionStrategy, VisionView
from mustdrop.vision.prumerge import PruMerge, PruMergePlus, grid_step, merged, score_and_keys

GIVEN = {"hidden", "key", "query", "attn", "idx", "dim"}
LAST = -1  # the block of the recorded keys


def replay_prumerge(stem: str, data: dict[str, np.ndarray]) -> dict[str, Tensor]:
    """Our values of the arrays that the file holds."""
    held = {name: torch.from_numpy(np.asarray(value)) for name, value in data.items()}
    if stem == "iqr":
        rows = torch.stack([_share(row) for row in held["attn"]])
        return {"ratio_pooled": _share(held["attn"].flatten()), "ratio_rows": rows}
    if stem == "complement_idx":
        return {"out": torch.stack([complement(row, int(held["dim"])) for row in held["idx"]])}
    if stem == "int_trunc":  # a count goes by way of a ratio in the code, and not here
        bad = [n for n in range(577) if int(576 * (n / 576)) != n]
        return {"n_bad": torch.tensor(bad, dtype=torch.long)}
    if stem == "plus_crash":
        return {"first_bad_n": torch.tensor(next(n for n in range(577) if grid_step(n, 576) == 0))}
    return _images(stem, held)


def _share(score: Tensor) -> Tensor:
    return outliers(score).double().mean()


def _images(stem: str, held: dict[str, Tensor]) -> dict[str, Tensor]:
    ours: dict[str, list[Tensor]] = {"cls_attn": [], "out": []}
    fixed = "fixed" in stem
    keep = int(held["cls_attn"].shape[1] * float(held["ratio"]))
    for hidden, query, key in zip(held["hidden"], held["query"], held["key"], strict=True):
        view = vision_view(
            hidden[1:],
            queries_keys=lambda block, query=query, key=key: (query[None], key[None]),
        )
        score, _ = score_and_keys(view, LAST, "code")
        ours["cls_attn"].append(score)
        if fixed and "plus" in stem:
            ours["out"].append(_twice(view, score, keep))
        else:
            kind: type[VisionStrategy] = PruMergePlus if "plus" in stem else PruMerge
            ours["out"].append(kind(keep=keep + 1 if fixed else None).reduce(view)(hidden[1:]))
    stacked = {name: torch.stack(values) for name, values in ours.items()}
    if fixed:
        return stacked | {"ratio": held["ratio"]}
    counts = outliers(stacked["cls_attn"][0])  # the adaptive files hold one image
    return stacked | {"ratio": counts.double().mean(), "left_tokens": counts.sum()}


def _twice(view: VisionView, score: Tensor, keep: int) -> Tensor:
    """The code's fixed PruMerge+, for training, which we do not have: a patch may be listed twice.

    One that is stands behind itself as a token of its own; and as many of the first patches as are
    listed twice vanish from the others.
    """
    tokens = len(score)
    step = tokens // keep
    grid = torch.arange(step // 2, tokens - 1, step)
    listed = torch.cat([score.argsort(descending=True, stable=True)[:keep], grid])
    others = torch.arange(tokens).index_fill(0, listed, 0).sort().values[len(listed) :]
    order = torch.cat([listed, others])
    _, keys = score_and_keys(view, LAST, "code")
    again = vision_view(view.hidden[order], sizes=view.sizes[order])
    decision = merged(again, score[order], keys[order], torch.arange(len(listed)), 32, "code")
    return decision(again.hidden)
