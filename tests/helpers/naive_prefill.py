"""The layouts that the golden READMEs name and whose files may not be here, filled by plain loops.

Each function reads the authors' code line by line in numpy, one number at a time where it can, and
knows nothing of ours. Token counts are small: a layout is names, shapes and meaning.
"""

import math
from collections.abc import Callable

import numpy as np

Arrays = dict[str, np.ndarray]


def _softmax(row: np.ndarray) -> np.ndarray:
    weights = np.exp(row.astype(np.float64) - row.max())
    return weights / weights.sum()


def _ranked(score: np.ndarray, keep: int) -> list[int]:
    return sorted(range(len(score)), key=lambda at: -score[at])[:keep]


def _fastv(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """(attention of the last row [8, 680], its mean over the image)."""
    rows = np.stack([_softmax(row) for row in rng.normal(size=(8, 680))])
    score = [sum(rows[head, 35 + at] for head in range(8)) / 8 for at in range(576)]
    return rows.astype(np.float32), np.array(score, dtype=np.float32)


def fastv_inplace() -> Arrays:
    rows, score = _fastv(np.random.default_rng(1))
    chosen = {35 + at for at in _ranked(score, 144)}
    keep = np.array([at for at in range(680) if not 35 <= at < 611 or at in chosen])
    return {
        "keep": keep, "position_ids": keep[None], "att_lastrow_heads": rows,
        "sys_len": np.array(35), "img_len": np.array(576), "rank": np.array(144),
    }  # fmt: skip


def fastv_mask() -> Arrays:
    rows, score = _fastv(np.random.default_rng(2))
    chosen = {35 + at for at in _ranked(score, 144)}
    mask = np.array([[not 35 <= at < 611 or at in chosen for at in range(680)]])
    return {"keymask": mask, "att_lastrow_heads": rows, "rank": np.array(144)}


def fastv_kvcache() -> Arrays:
    rows, score = _fastv(np.random.default_rng(3))
    chosen = {35 + at for at in _ranked(score, int(576 * 0.5))}
    keep = np.array([at for at in range(680) if not 35 <= at < 611 or at in chosen])
    return {
        "keep": keep, "position_ids": keep[None], "att_lastrow_heads": rows,
        "mask_shape": np.array([1, 1, len(keep), len(keep)]),
    }  # fmt: skip


def pyramiddrop_mask() -> Arrays:
    """Two prompts, one padded on the right; the score is computed number by number."""
    rng = np.random.default_rng(4)
    heads, dim, start, images, prompts = 4, 8, 11, 30, [20, 27]
    longest, ratio = max(prompts) + images, 0.42
    x = rng.normal(size=(2, longest, heads * dim)).astype(np.float32)
    q_w, k_w = rng.normal(size=(2, heads * dim, heads * dim)).astype(np.float32) / 3
    ln_w = rng.uniform(0.5, 1.5, heads * dim).astype(np.float32)
    keep = int(images * ratio)
    after = max(prompts) + keep
    out, pos = np.zeros((2, after, heads * dim), np.float32), np.zeros((2, after), np.int64)
    mask_in, mask_out = np.zeros((2, longest), bool), np.zeros((2, after), bool)
    for number, prompt in enumerate(prompts):
        tokens = prompt + images
        mask_in[number, :tokens] = True

        def turned(at: int, weight: np.ndarray, states=x[number]) -> np.ndarray:
            state = states[at].astype(np.float64)
            state = state / math.sqrt((state**2).mean() + 1e-6) * ln_w
            flat = weight.astype(np.float64) @ state
            for head in range(heads):
                own = flat[head * dim : (head + 1) * dim].copy()
                for i in range(dim // 2):
                    angle = at * 10000.0 ** (-2 * i / dim)
                    a, b = own[i], own[i + dim // 2]
                    flat[head * dim + i] = a * math.cos(angle) - b * math.sin(angle)
                    flat[head * dim + i + dim // 2] = b * math.cos(angle) + a * math.sin(angle)
            return flat.reshape(heads, dim)

        query = turned(tokens - 1, q_w)
        dots = np.stack([(query * turned(at, k_w)).sum(1) for at in range(tokens)], 1)
        weights = np.stack([_softmax(row / math.sqrt(dim)) for row in dots])
        score = weights.mean(0)[start : start + images]
        kept = sorted(start + at for at in _ranked(score, keep))
        order = [*range(start), *kept, *range(start + images, tokens)]
        out[number, : len(order)] = x[number, order]
        pos[number, : len(order)] = range(len(order))
        mask_out[number, : len(order)] = True
    return {
        "x": x, "q_w": q_w, "k_w": k_w, "ln_w": ln_w, "num_heads": np.array(heads),
        "head_dim": np.array(dim), "rope_base": np.array(10000), "rms_eps": np.array(1e-6),
        "image_index": np.array(start), "n_img": np.array(images),
        "prompt_len": np.array(prompts), "ratio_cur": np.array(1.0),
        "ratio_next": np.array(ratio), "x_out": out, "pos_out": pos, "mask_in": mask_in,
        "mask_out": mask_out,
    }  # fmt: skip


def vtw_withdraw() -> Arrays:
    hidden = np.random.default_rng(5).normal(size=(1, 650, 8)).astype(np.float32)
    keep = [at for at in range(650) if not 35 <= at < 611]
    return {
        "hidden": hidden, "sys_len": np.array(35), "img_len": np.array(576),
        "hidden_out": hidden[:, keep], "pos_keep": np.array([keep]),
        "pos_reindex": np.arange(len(keep))[None],
    }  # fmt: skip


def vtw_findk() -> Arrays:
    """The divergence falls with K, not always; the first below eta is not the last to be above."""
    rng = np.random.default_rng(6)
    full = rng.normal(size=(1, 50)).astype(np.float32)
    noise = np.geomspace(1.0, 0.005, 27)
    noise[20] = 0.5
    withdrawn = np.stack([full + n * rng.normal(size=(1, 50)) for n in noise]).astype(np.float32)
    kl = []
    for row in withdrawn:
        p, q = _softmax(row[0]), _softmax(full[0])
        kl.append(sum(p[i] * (math.log(p[i]) - math.log(q[i])) for i in range(50)))
    eta = 0.003
    k = next(at for at, value in enumerate(kl) if value <= eta) + 5
    assert 5 < k < 25 and kl[20] > eta
    return {
        "logits_full": full, "logits_withdrawn": withdrawn,
        "kl": np.array(kl, dtype=np.float32), "eta": np.array(eta), "k": np.array(k),
    }  # fmt: skip


LAYOUTS: dict[str, Callable[[], Arrays]] = {
    "fastv/inplace_rank144": fastv_inplace,
    "fastv/mask_rank144": fastv_mask,
    "fastv/kvcache_ratio0.5": fastv_kvcache,
    "pyramiddrop/rank_drop_B2_mask": pyramiddrop_mask,
    "vtw/withdraw": vtw_withdraw,
    "vtw/findk": vtw_findk,
}
