"""The encoder-side rivals once more, in plain loops: separate code to check ours against.

Also golden-like arrays made by it, for the layouts whose file is not in tests/golden.
"""

import math

import numpy as np
import torch
from transformers import CLIPVisionConfig, CLIPVisionModel

Arrays = dict[str, np.ndarray]


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / math.sqrt(float(a @ a) * float(b @ b)))


def tome_groups(metric: np.ndarray, r: int, cls: bool) -> list[list[int]]:
    """What each survivor of a whole sequence is made of, in the survivors' order."""
    tokens = len(metric)
    first, second = list(range(0, tokens, 2)), list(range(1, tokens, 2))
    r = min(r, (tokens - cls) // 2)
    if r <= 0:
        return [[token] for token in range(tokens)]
    edges = []
    for a in first:
        similar = [cosine(metric[a], metric[b]) for b in second]
        best = max(range(len(second)), key=lambda j: similar[j])
        edges.append((-math.inf if cls and a == 0 else similar[best], a, second[best]))
    edges.sort(key=lambda edge: -edge[0])
    stay = [a for _, a, _ in edges[r:]]
    groups = {b: [b] for b in second}
    for _, a, b in edges[:r]:
        groups[b].append(a)
    return [[a] for a in (sorted(stay) if cls else stay)] + list(groups.values())


def tome_layer(
    metric: np.ndarray, x: np.ndarray, size: np.ndarray, r: int, cls: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """(states, sizes) of the survivors of a whole sequence."""
    groups = tome_groups(metric, r, cls)
    total = np.array([sum(size[token] for token in group) for group in groups])
    states = [sum(size[token] * x[token] for token in group) for group in groups]
    return np.stack([s / t for s, t in zip(states, total, strict=True)]).astype(np.float32), total


def cls_attention(query: np.ndarray, key: np.ndarray) -> np.ndarray:
    """Softmax of one head over all channels, row of [CLS], its own column left out."""
    score = [float(query[0] @ k) / math.sqrt(len(k)) for k in key]
    weight = np.exp(np.array(score) - max(score))
    return (weight / weight.sum())[1:]


def standing_out(score: np.ndarray) -> int:
    first, third = np.percentile(score, [25, 75])
    return int((score > third + 1.5 * (third - first)).sum())


def complement(kept: list[int], tokens: int) -> list[int]:
    """As the authors have it: what is listed twice costs the first of the others."""
    marked = sorted(0 if token in set(kept) else token for token in range(tokens))
    return marked[len(kept) :]


def prumerge_mix(
    score: np.ndarray, keys: np.ndarray, kept: list[int], neighbours: int = 32
) -> np.ndarray:
    """Weights of all tokens in all that go on, as the authors' code has them."""
    rest = complement(kept, len(score))
    rows = []
    for place, centre in enumerate(kept):
        others = kept[:place] + kept[place + 1 :] + rest
        others.sort(key=lambda token: -cosine(keys[centre], keys[token]))
        row = np.zeros(len(score))
        for token in others[:neighbours]:
            row[token] += score[token]
        row[centre] += 1
        rows.append(row)
    last = np.zeros(len(score))
    for token in rest:
        last[token] += score[token]
    return np.stack([*rows, last])


def by_score(score: np.ndarray) -> list[int]:
    return sorted(range(len(score)), key=lambda token: -score[token])


def visionzip_rows(
    score: np.ndarray, metric: np.ndarray, dominant: int, contextual: int
) -> tuple[list[int], list[dict[int, float]]]:
    """(dominant patches, weights of the patches in each contextual token)."""
    chosen = sorted(by_score(score)[: dominant - 1])
    rest = [token for token in range(len(score)) if token not in chosen]
    targets = rest[:: max(1, len(rest) // max(contextual, 1))][:contextual]
    members: dict[int, list[int]] = {target: [] for target in targets}
    for token in rest:
        if token not in targets and targets:
            members[max(targets, key=lambda t: cosine(metric[token], metric[t]))].append(token)
    return chosen, [
        {target: 1.0, **{token: 1 / len(came) for token in came}}
        for target, came in members.items()
    ]


def divprune(distance: np.ndarray, keep: int) -> list[int]:
    """Chosen tokens in order; one may come twice."""
    tokens = range(len(distance))
    chosen = [max(tokens, key=lambda j: sorted(distance[:, j])[1])]
    while len(chosen) < keep:
        chosen.append(max(tokens, key=lambda j: min(distance[i, j] for i in chosen)))
    return chosen


def vispruner(score: np.ndarray, hidden: np.ndarray, keep: int, important: int) -> set[int]:
    order = by_score(score)
    chosen, listed = order[:important], order[important:]
    if keep == important:
        return set(chosen)
    while len(listed) > keep - important:
        even, odd = listed[::2], listed[1::2]
        leave = min(8, len(listed) - (keep - important))
        close = {a: max(cosine(hidden[a], hidden[b]) for b in odd) for a in even}
        listed = sorted(even, key=lambda a: -close[a])[leave:] + odd
    return set(chosen + listed)


# --- arrays in the layouts of the golden files that are not here ---------------------------------


def _normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def three_layers_cls() -> Arrays:
    data: Arrays = {"r": np.array([8, 20, 100])}
    x, sizes = _normal(0, 2, 65, 8), [np.ones(65)] * 2
    for layer, r in enumerate(data["r"]):
        metric = _normal(layer + 1, 2, x.shape[1], 8)
        each = [tome_layer(metric[i], x[i], sizes[i], int(r)) for i in range(2)]
        sizes = [size for _, size in each]
        data |= {f"l{layer}_metric": metric, f"l{layer}_x_in": x}
        x = np.stack([states for states, _ in each])
        data[f"l{layer}_x_out"] = x
        data[f"l{layer}_size"] = np.stack(sizes)[..., None].astype(np.float32)
    return data


def kth3() -> Arrays:
    metric, x = _normal(0, 1, 24, 6), _normal(1, 1, 24, 5)
    groups = {target: [target] for target in range(2, 24, 3)}
    for token in range(24):
        if token not in groups:
            best = max(groups, key=lambda target: cosine(metric[0, token], metric[0, target]))
            groups[best].append(token)
    merged = [x[0, group].mean(0) for group in groups.values()]
    return {"metric": metric, "x": x, "k": np.array(3), "x_merged": np.stack(merged)[None]}


def lightcompress_clip_tiny() -> Arrays:
    torch.manual_seed(0)
    config = CLIPVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=4, num_attention_heads=4,
        image_size=84, patch_size=14, attn_implementation="eager",
    )  # fmt: skip
    model = CLIPVisionModel(config).eval()
    for weight in model.parameters():
        weight.data.normal_(0, 0.2)
    data: Arrays = {"pixel_values": _normal(0, 2, 3, 84, 84), "r": np.array([3, 5, 2, 4])}
    data |= {f"sd_{name}": value.numpy() for name, value in model.state_dict().items()}
    tower = getattr(model, "vision_model", model)
    with torch.inference_mode():
        start = tower.pre_layrnorm(tower.embeddings(torch.from_numpy(data["pixel_values"])))
        for prefix, amounts in (("base_", [0] * 4), ("", data["r"].tolist())):
            hidden = start
            data[f"{prefix}hidden_0"] = hidden.numpy()
            for number, (block, r) in enumerate(zip(tower.encoder.layers, amounts, strict=True)):
                normed = block.layer_norm1(hidden)
                hidden = hidden + block.self_attn(normed, attention_mask=None)[0]
                keys = block.self_attn.k_proj(normed).unflatten(-1, (4, -1)).mean(2)
                if r:
                    images = zip(keys.numpy(), hidden.numpy(), strict=True)
                    merged = [tome_layer(m, x, np.ones(len(x)), r)[0] for m, x in images]
                    hidden = torch.from_numpy(np.stack(merged))
                hidden = hidden + block.mlp(block.layer_norm2(hidden))
                data[f"{prefix}hidden_{number + 1}"] = hidden.numpy()
    return data


def prumerge_plus(fixed: bool, seed: int = 0, share: float = 0.2) -> Arrays:
    """``share`` of the tokens stand out; or, ``fixed``, the code's branch for training, 2 images.

    Tokens attract more or less of [CLS]'s attention as their keys lie along its query.
    """
    images = 2 if fixed else 1
    query, key = _normal(seed, images, 577, 32), _normal(seed + 1, images, 577, 32)
    drawn = np.random.default_rng(seed + 2).random((images, 577)) < share
    along = query[:, :1] / np.linalg.norm(query[:, :1], axis=-1, keepdims=True)
    key += (drawn[..., None] * 4 - 2) * along * 2
    hidden = _normal(seed + 3, images, 577, 32)
    attention, out, ratio = [], [], 1 / 8
    for image in range(images):
        score = cls_attention(query[image], key[image])
        attention.append(score)
        if fixed:
            kept = by_score(score)[:72] + list(range(4, 575, 8))
        else:
            count = standing_out(score)
            ratio = count / 576
            kept = by_score(score)[:count]
            grid = range(0, 575, int(int(1 / ratio) / 3))
            kept += [token for token in grid if token not in kept]
        out.append(prumerge_mix(score, key[image, 1:], kept) @ hidden[image, 1:])
    data = {"hidden": hidden, "key": key, "query": query, "ratio": np.array(ratio)}
    data["cls_attn"] = np.stack(attention).astype(np.float32)
    data["out"] = np.stack(out).astype(np.float32)
    return data if fixed else {**data, "left_tokens": np.array(count)}


def complement_idx() -> Arrays:
    random = np.random.default_rng(0)
    idx = np.stack([random.permutation(20)[:6] for _ in range(3)])
    return {
        "idx": idx,
        "dim": np.array(20),
        "out": np.stack([complement(list(i), 20) for i in idx]),
    }


def int_trunc() -> Arrays:
    return {"n_bad": np.zeros(0, dtype=np.int64)}


def plus_crash() -> Arrays:
    return {"first_bad_n": np.array(next(n for n in range(1, 577) if int(int(576 / n) / 3) == 0))}


def duplicates() -> Arrays:
    """40 vectors, of which 12 point apart: some have to be chosen twice over."""
    v = np.concatenate([_normal(0, 12, 6)] * 4)[:40]
    v *= np.repeat([1.0, 2.0, 4.0, 1.0], 12)[:40, None].astype(np.float32)
    unit = v / np.linalg.norm(v, axis=-1, keepdims=True)
    dist = (1 - unit @ unit.T).astype(np.float32)
    chosen = np.array(divprune(dist, 20))
    return {"v": v, "ratio": np.array(0.5), "selected": chosen, "dist": dist}


LAYOUTS = {
    "tome/three_layers_cls": three_layers_cls,
    "tome/kth3": kth3,
    "tome/lightcompress_clip_tiny": lightcompress_clip_tiny,
    "prumerge/prumerge_plus_adaptive_s302": lambda: prumerge_plus(fixed=False),
    "prumerge/prumerge_plus_fixed_1_8_B2": lambda: prumerge_plus(fixed=True),
    "prumerge/complement_idx": complement_idx,
    "prumerge/int_trunc": int_trunc,
    "prumerge/plus_crash": plus_crash,
    "divprune/duplicates": duplicates,
}
