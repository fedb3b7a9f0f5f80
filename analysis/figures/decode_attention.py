"""Attention of new tokens while decoding: its share on vision tokens, concentration and maps.

Each arm is the trace of the same sample in one run. Knows nothing about models. After Figure 4 of
MustDrop, arXiv:2411.10803.
"""

import textwrap
from collections import Counter
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from analysis.figures.overlays import Panel, framed, panels
from analysis.figures.points import name_of
from analysis.figures.style import (
    DOUBLE,
    GONE,
    GREY,
    HEAT,
    SMALL,
    look,
    rule,
    sheet,
    styled,
)
from analysis.figures.traced import Traced
from analysis.records.fates import fates
from mustdrop.runs.trace import DecodeAttention, Trace

MAX_LAYERS = 6  # layers with a map
REPEAT_STYLES = ("--", "-.", ":")  # lines of one method at several budgets
TOP = 0.1  # share of the tokens whose attention measures the concentration


def concentration(attention: DecodeAttention) -> float:
    """Share of the attention to vision tokens that the most attended tenth of them receives."""
    values = attention.vision
    count = max(1, round(TOP * len(values)))
    total = float(values.sum())
    return float(np.sort(values)[::-1][:count].sum()) / total if total else float("nan")


def density(trace: Trace, layer: int, number: int = 0) -> Float[np.ndarray, "rows columns"]:
    """Attention per patch: that of a token is divided among its patches; NaN without token."""
    grid, slots, carries = trace.ledger.image_tokens(number)
    attention = trace.decode_attention[layer]
    by_slot = dict(zip(attention.positions.tolist(), attention.vision.tolist(), strict=True))
    out = np.full(grid[0] * grid[1], np.nan)
    for slot, patches in zip(slots.tolist(), carries.numpy(), strict=True):
        if slot in by_slot:
            out[patches] = np.nan_to_num(out[patches]) + by_slot[slot] / patches.sum()
    return out.reshape(grid)


@styled
def draw(arms: Sequence[Traced], number: int = 0) -> Figure:
    """Two line plots by layer, and below them a row of maps for each arm.

    Args:
        arms: Traces of one sample, vanilla first.
        number: Index of the image that the maps show.

    Raises:
        ValueError: If the traces are of several samples, or a trace has no decode attention.
    """
    if len({(arm.task, arm.doc_id) for arm in arms}) != 1:
        raise ValueError(f"expected traces of one sample, got {[arm.doc_id for arm in arms]}")
    for arm in arms:
        if not arm.trace.decode_attention:
            raise ValueError(f"{arm.arm}: the trace of sample {arm.doc_id} has no decode attention")
    layers = _chosen(sorted(arms[0].trace.decode_attention))
    columns = len(layers) + 1
    side = DOUBLE / columns
    figure = sheet(DOUBLE, 1.75 + len(arms) * (side + 0.16))
    parts = figure.subfigures(2, 1, squeeze=False, height_ratios=[1.75, len(arms) * (side + 0.16)])
    upper, lower = parts.flat
    total, top = upper.subplots(1, 2)
    _lines(total, arms, [[100 * (1 - a.text) for a in _by_layer(arm)] for arm in arms])
    total.set_title("attention of new tokens to vision tokens, %", loc="left")
    _lines(top, arms, [[100 * concentration(a) for a in _by_layer(arm)] for arm in arms])
    top.set_title("of this, to the most attended tenth of them, %", loc="left")
    top.axhline(100 * TOP, color=GREY, lw=0.7, ls=":")
    top.annotate(
        "evenly spread", (1, 100 * TOP), (0, 1.5), ("axes fraction", "data"), ha="right",
        textcoords="offset points", size=SMALL, color=GREY,
    )  # fmt: skip
    total.legend(handlelength=1.6)
    head = [arms[0].question, *(f"{arm.arm}: {arm.verdict}" for arm in arms)]
    head = textwrap.fill(" · ".join(head), int(14.5 * DOUBLE))
    upper.suptitle(head, size=7.5, weight="bold", x=0.01, ha="left")
    axes = lower.subplots(len(arms), columns, squeeze=False)
    for row, arm in zip(axes, arms, strict=True):
        _row(row, arm, layers, number)
    if arms[0].trace.ledger.videos:
        axes[0, 0].set_title(f"frame {number + 1}")
    for ax, layer in zip(axes[0, 1:], layers, strict=True):
        ax.set_title(f"layer {layer}")
    shades = lower.colorbar(
        _norm(1.0)[1], ax=axes, orientation="horizontal", aspect=50, pad=0.02, fraction=0.05
    )
    shades.set_ticks([0, 0.25, 1], labels=["0", "¼", "most in the layer"])
    shades.ax.tick_params(labelsize=SMALL, length=2)
    shades.set_label("attention to a patch (square-root scale)", size=SMALL)
    return figure


def _chosen(layers: Sequence[int]) -> list[int]:
    """Up to ``MAX_LAYERS`` layers, denser among the early ones, where attention changes most."""
    spaced = np.linspace(0, 1, min(MAX_LAYERS, len(layers))) ** 1.6 * (len(layers) - 1)
    indices: list[int] = []
    for index in spaced.round().astype(int):
        indices.append(max(int(index), indices[-1] + 1) if indices else int(index))
    return [layers[min(index, len(layers) - 1)] for index in indices]


def _by_layer(arm: Traced) -> list[DecodeAttention]:
    return [arm.trace.decode_attention[layer] for layer in sorted(arm.trace.decode_attention)]


def _lines(ax: Axes, arms: Sequence[Traced], values: Sequence[Sequence[float]]) -> None:
    drawn: Counter[str] = Counter()
    for arm, line in zip(arms, values, strict=True):
        method = name_of(arm.cell)
        style = look(method)
        if drawn[method]:  # the same method at another budget
            style["linestyle"] = REPEAT_STYLES[drawn[method] % len(REPEAT_STYLES)]
        drawn[method] += 1
        ax.plot(sorted(arm.trace.decode_attention), line, ms=3, label=arm.arm, **style)
    ax.set(ylim=(0, None), xlabel="layer")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    rule(ax)


def _row(row: Sequence[Axes], arm: Traced, layers: Sequence[int], number: int) -> None:
    trace = arm.trace
    region = trace.region if number == 0 else None
    wide, tall = (
        trace.picture(number).size if trace.pictures else trace.ledger.image_tokens(number)[0][::-1]
    )
    extent = (0.0, float(wide), float(tall), 0.0)  # keeps the proportions of the picture
    if trace.pictures:
        shown = panels(trace.picture(number), fates(trace.ledger, number))[-1].picture
        framed(row[0], Panel("cache", "", shown), region, 1.2, 0.6)
    else:
        row[0].set(xticks=[], yticks=[])
        row[0].spines[:].set_visible(False)
    row[0].set_ylabel(arm.arm)
    for ax, layer in zip(row[1:], layers, strict=True):
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
        if layer not in trace.decode_attention:
            ax.text(0.5, 0.5, "none", ha="center", va="center", size=SMALL, color=GREY)
            continue
        heat = density(trace, layer, number)
        most = float(np.nanmax(heat)) if np.isfinite(heat).any() else 1.0
        colours, scale = _norm(most or 1.0)
        ax.set_facecolor(GONE)
        ax.imshow(np.ma.masked_invalid(heat), cmap=scale.cmap, norm=colours, extent=extent)


def _norm(most: float) -> tuple[PowerNorm, ScalarMappable]:
    """Square-root scale, so that small values stay visible next to the largest."""
    norm = PowerNorm(0.5, 0.0, most)
    return norm, ScalarMappable(norm, HEAT)
