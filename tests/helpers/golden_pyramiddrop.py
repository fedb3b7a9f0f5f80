"""Our PyramidDrop on the authors' recorded hidden states and weights; every layout of their set."""

from collections.abc import Sequence

import numpy as np
import torch
from fake_views import prefill_view
from torch import Tensor

from mustdrop.budget import average
from mustdrop.functional import attention_rows
from mustdrop.prefill.pyramiddrop import PyramidDrop, falling_ratios

GIVEN = {
    "x", "q_w", "k_w", "ln_w", "num_heads", "head_dim", "rope_base", "rms_eps", "image_index",
    "n_img", "prompt_len", "ratio_cur", "ratio_next", "mask_in", "targets",
}  # fmt: skip
DEPTH, PATCHES = 32, 576


def replay_pyramiddrop(data: dict[str, np.ndarray]) -> dict[str, Tensor]:
    """Our values of the arrays that the file holds."""
    return _budget(data) if "targets" in data else _rank_drop(data)


def _rank_drop(data: dict[str, np.ndarray]) -> dict[str, Tensor]:
    """One stage on a batch that is padded on the right, as theirs is."""
    x = torch.from_numpy(data["x"])
    images = int(int(data["n_img"]) * float(data["ratio_cur"]))
    rows = [
        _one(data, states[: int(prompt) + images], images)
        for states, prompt in zip(x, data["prompt_len"], strict=True)
    ]
    longest = max(len(row) for row in rows)
    x_out, pos_out = torch.zeros(len(x), longest, x.shape[2]), torch.zeros(len(x), longest).long()
    mask_out = torch.zeros(len(x), longest, dtype=torch.bool)
    for number, row in enumerate(rows):
        x_out[number, : len(row)] = row
        pos_out[number, : len(row)] = torch.arange(len(row))
        mask_out[number, : len(row)] = True
    ours = {"x_out": x_out, "pos_out": pos_out, "mask_out": mask_out}
    return {name: value for name, value in ours.items() if name in data}


def _one(data: dict[str, np.ndarray], states: Tensor, images: int) -> Tensor:
    """What goes on of one prompt."""
    start, text = int(data["image_index"]), len(states) - int(data["image_index"]) - images
    query, key = _next_layer(data, states)

    def attention(rows, of) -> Tensor:
        assert (rows, of) == ("last", "next")
        weights = attention_rows(query[:, -1:], key, int(data["head_dim"]) ** -0.5, len(states) - 1)
        return weights[..., start : start + images]

    view = prefill_view(
        images,
        start,
        text,
        layer=7,
        entered=int(data["n_img"]),
        entered_cells=int(data["n_img"]),
        attention=attention,
    )
    kept = PyramidDrop([float(data["ratio_next"])], layers=[7]).reduce(view).keep
    return torch.cat([states[:start], states[start + kept], states[start + images :]])


def _next_layer(data: dict[str, np.ndarray], states: Tensor) -> tuple[Tensor, Tensor]:
    """Queries and keys [heads, tokens, dim] of a Llama layer with the recorded weights."""
    heads, dim = int(data["num_heads"]), int(data["head_dim"])
    variance = states.square().mean(-1, keepdim=True) + float(data["rms_eps"])
    normed = states * variance.rsqrt() * torch.from_numpy(data["ln_w"])
    frequency = float(data["rope_base"]) ** -(torch.arange(0, dim, 2) / dim)
    angle = torch.outer(torch.arange(len(states)).float(), frequency).repeat(1, 2)

    def project(name: str) -> Tensor:
        out = normed @ torch.from_numpy(data[name]).T
        out = out.view(len(states), heads, dim).transpose(0, 1)
        turned = torch.cat([-out[..., dim // 2 :], out[..., : dim // 2]], -1)
        return out * angle.cos() + turned * angle.sin()

    return project("q_w"), project("k_w")


def _budget(data: dict[str, np.ndarray]) -> dict[str, Tensor]:
    """The ratio lambda, lambda^2, lambda^3 of each budget, and three executed averages."""
    low, paper = [1, 7, 15], PyramidDrop([0.5, 0.25, 0.125])
    found = [falling_ratios(float(target), PATCHES, DEPTH, low)[0] for target in data["targets"]]

    def executed(ratios: Sequence[float], layers: Sequence[int]) -> Tensor:
        return torch.tensor(average(PATCHES, [PATCHES * r for r in ratios], layers, DEPTH))

    ours = {
        "lam_2_8_16": torch.tensor(found),
        "check_lam019": executed([0.19, 0.19**2, 0.19**3], low),
        "avg_default": executed(paper.ratios, paper.layers),
        "min_8_16_24": executed([0.0, 0.0, 0.0], paper.layers),
    }
    return {name: value for name, value in ours.items() if name in data}
