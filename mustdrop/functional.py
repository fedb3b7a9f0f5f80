"""Pure tensor functions on one prompt or one image: attention rows, windows, selections.

Knows nothing about models, hooks, strategies or configs. Nothing here moves data to the host.
"""

import hashlib
import math
from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor

ROWS = 128  # rows of attention in memory at a time, where all of them are read


def attention_rows(
    query: Float[Tensor, "heads rows dim"],
    key: Float[Tensor, "kv_heads tokens dim"],
    scaling: float,
    first: int | None = None,
    where: Int[Tensor, " rows"] | None = None,
    bias: Float[Tensor, " tokens"] | None = None,
    seen: Bool[Tensor, "rows tokens"] | None = None,
) -> Float[Tensor, "heads rows tokens"]:
    """Attention weights of some rows only, as eager attention would compute them.

    The softmax runs over the whole row in float32 and is cast back to the query's dtype, so that
    thresholds apply to the numbers that the model uses. Cost: ``rows x tokens`` dot products; the
    full map of ``tokens x tokens`` is never formed.

    Args:
        query: Queries of the requested rows, after norm and rotary embedding.
        key: Keys of all tokens, after the same steps; heads are grouped as by ``repeat_kv``.
        scaling: Factor on the dot products, usually ``dim ** -0.5``.
        first: Index of the first row among the tokens, for the causal mask: every row sees at
            least the tokens up to it. None: every row sees all tokens.
        where: Index of each row among the tokens; None: the rows are consecutive from ``first``.
        bias: Numbers that are added to the scores of every row.
        seen: Whether each row sees each token, in place of the causal mask.
    """
    heads, rows, dim = query.shape
    kv_heads, tokens, _ = key.shape
    grouped = query.reshape(kv_heads, heads // kv_heads * rows, dim)
    # in place: a copy of the scores costs as much time as a tenth of their products
    score = (grouped @ key.transpose(-1, -2)).mul_(scaling).view(heads, rows, tokens)
    if bias is not None:
        score = score + bias.to(score)
    if seen is not None:
        score.masked_fill_(seen.to(key.device).logical_not(), -math.inf)
    elif first is not None and first + 1 < tokens:
        if where is None:
            ahead = torch.ones(rows, tokens - first, dtype=torch.bool, device=key.device).triu_(1)
        else:
            column = torch.arange(first, tokens, device=key.device)
            ahead = column > where.to(key.device)[:, None]
        score[..., first:].masked_fill_(ahead, -math.inf)
    return score.softmax(-1, dtype=torch.float32).to(query.dtype)


def received_attention(
    query: Float[Tensor, "heads rows dim"],
    key: Float[Tensor, "kv_heads tokens dim"],
    scaling: float,
    first: int | None = None,
    bias: Float[Tensor, " tokens"] | None = None,
    seen: Bool[Tensor, "rows tokens"] | None = None,
) -> Float[Tensor, "heads tokens"]:
    """Attention that each token receives: the mean over the rows, in float32, a few at a time.

    The arguments are those of :func:`attention_rows`.
    """
    total = torch.zeros(query.shape[0], key.shape[1], device=query.device)
    for start in range(0, query.shape[1], ROWS):
        rows = query[:, start : start + ROWS]
        row = None if first is None else first + start
        part = None if seen is None else seen[start : start + ROWS]
        total += attention_rows(rows, key, scaling, row, bias=bias, seen=part).float().sum(1)
    return total / query.shape[1]


def ranked(score: Float[Tensor, " tokens"]) -> Int[Tensor, " tokens"]:
    """Indices of all tokens by decreasing score; earlier tokens win ties, and NaN ranks last."""
    # An ascending sort puts NaN last, also after infinity; a descending one would put it first.
    return (-score).argsort(stable=True)


def top_keep(
    score: Float[Tensor, " tokens"], keep: int, protected: Bool[Tensor, " tokens"] | None = None
) -> Int[Tensor, " kept"]:
    """Indices of the ``keep`` highest scores, in sequence order; protected tokens rank first.

    Ties go to the earlier token, on every device and in every batch. A score of NaN ranks last.

    Raises:
        ValueError: If ``keep`` is not in [0, tokens].
    """
    if not 0 <= keep <= len(score):
        raise ValueError(f"keep must be in [0, {len(score)}], got {keep}")
    order = ranked(score)
    if protected is not None:
        # A second sort, because a score of infinity would tie with other tokens of infinite score.
        order = order[protected[order].to(torch.uint8).argsort(descending=True, stable=True)]
    return order[:keep].sort().values


def complement(index: Int[Tensor, " kept"], tokens: int) -> Int[Tensor, " rest"]:
    """Indices below ``tokens`` that are not in ``index``, ascending; ``index`` has no repeats."""
    others = torch.ones(tokens, dtype=torch.bool, device=index.device).index_fill_(0, index, False)
    return true_indices(others, tokens - len(index))


def true_indices(mask: Bool[Tensor, " tokens"], count: int) -> Int[Tensor, " true"]:
    """Indices where a mask is true, ascending; their ``count`` is given, so nothing waits."""
    return mask.logical_not().to(torch.uint8).argsort(stable=True)[:count]


def outliers(score: Float[Tensor, " tokens"], spread: float = 1.5) -> Bool[Tensor, " tokens"]:
    """Whether each score is more than ``spread`` interquartile ranges above the third quartile."""
    score = score.float()
    quarters = torch.tensor([0.25, 0.75]).to(score.device, non_blocking=True)
    first, third = score.quantile(quarters)
    return score > third + spread * (third - first)


def windows(
    height: int, width: int, window: int, device: torch.device | None = None
) -> Int[Tensor, "windows cells"]:
    """Raster indices of the cells of every ``window x window`` block, both in raster order.

    Raises:
        ValueError: If the window does not divide the grid.
    """
    if window < 1 or height % window or width % window:
        raise ValueError(
            f"a window of {window}x{window} does not divide the grid of {height}x{width} patches"
        )
    cells = torch.arange(height * width, device=device).view(height, width)
    return rearrange(cells, "(r a) (c b) -> (r c) (a b)", a=window, b=window)


def window_similarity(
    hidden: Float[Tensor, "tokens dim"],
    index: Int[Tensor, "windows cells"],
    reduce: Literal["mean", "sum"] = "mean",
) -> Float[Tensor, " windows"]:
    """Cosine similarity over the ordered pairs m != n of each window's tokens.

    S_w = sum_{m != n} cos(v_m, v_n) in float32, divided by the number of pairs for ``mean``.

    Source: arXiv:2411.10803, Eq. 5 (sum); the authors' code takes the mean.
    """
    unit = F.normalize(hidden[index].float(), dim=-1)
    cosine = unit @ unit.transpose(-1, -2)
    total = cosine.sum((-2, -1)) - cosine.diagonal(dim1=-2, dim2=-1).sum(-1)
    cells = index.shape[1]
    return total / (cells * (cells - 1)) if reduce == "mean" else total


def even_cells(height: int, width: int, keep: int) -> Int[Tensor, " kept"]:
    """Indices of ``keep`` cells spread evenly over a grid: about sqrt(keep) evenly filled rows.

    Raises:
        ValueError: If ``keep`` is not in [0, height * width].
    """
    if not 0 <= keep <= height * width:
        raise ValueError(f"keep must be in [0, {height * width}], got {keep}")
    if keep == 0:
        return torch.zeros(0, dtype=torch.long)
    rows = max(math.ceil(keep / width), round(math.sqrt(keep * height / width)))
    rows = min(rows, height, keep)
    chosen = []
    for line in range(rows):
        count = keep * (line + 1) // rows - keep * line // rows
        row = int((line + 0.5) * height / rows)
        columns = ((torch.arange(count) + 0.5) * width / max(count, 1)).long()
        chosen.append(row * width + columns)
    return torch.cat(chosen)


def even_regions(height: int, width: int, keep: int) -> Int[Tensor, "height width"]:
    """Region number of every cell, for ``keep`` regions that partition a grid evenly.

    Regions are boxes numbered in raster order: about sqrt(keep) bands of rows, each cut into a
    number of columns proportional to its height. As many regions as cells: one cell each.

    Raises:
        ValueError: If ``keep`` is not in [1, height * width].
    """
    if not 1 <= keep <= height * width:
        raise ValueError(f"keep must be in [1, {height * width}], got {keep}")
    bands = max(math.ceil(keep / width), round(math.sqrt(keep * height / width)))
    bands = min(bands, height, keep)
    regions = torch.empty(height, width, dtype=torch.long)
    assigned, top = 0, 0
    for band in range(bands):
        bottom, below = height * (band + 1) // bands, bands - band - 1
        share = round((keep - assigned) * (bottom - top) / (height - top))
        least, most = max(1, keep - assigned - below * width), min(width, keep - assigned - below)
        count = min(max(share, least), most)
        regions[top:bottom] = assigned + torch.arange(width) * count // width
        assigned, top = assigned + count, bottom
    return regions


def stable_seed(*parts: object) -> int:
    """Seed from the parts' bytes or text, the same in every process and on every machine."""
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        digest.update(part if isinstance(part, bytes) else repr(part).encode())
        digest.update(b"\0")
    return int.from_bytes(digest.digest(), "big") >> 1
