"""Bands whose height is the number of vision tokens, for encoder, prefill and KV cache.

A pale step above the band shows the tokens that were just dropped. Knows nothing about pictures.
"""

from collections.abc import Sequence
from itertools import groupby

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke

from analysis.figures.flow import Flow
from analysis.figures.style import BLACK, BLUE, GREEN, GREY, SKY, SMALL, VERMILION

ENCODER = 0.3  # share of the width for the encoder
HALO = [withStroke(linewidth=2.2, foreground="white")]  # keeps numbers readable over lines


def start(flow: Flow, layer: float) -> float:
    """Horizontal position in [0, 1] where a decoder layer begins."""
    return ENCODER + 0.02 + (0.98 - ENCODER) * layer / len(flow.entering)


def draw_band(ax: Axes, flow: Flow, rules: str) -> None:
    """Draw the tokens in encoder and prefill, with dropped tokens as steps."""
    top = flow.patches
    blocks = list(flow.encoder) or [flow.patches, flow.patches]
    edges = np.linspace(0, ENCODER, len(blocks))
    recorded = bool(flow.encoder)
    _steps(ax, edges, blocks[:-1], SKY, flow.patches, alpha=1.0 if recorded else 0.4)
    projected = blocks[-1] if recorded else flow.patches
    ax.fill_between([ENCODER, start(flow, 0)], 0, projected, color=SKY, lw=0, alpha=0.45)
    layers = [start(flow, layer) for layer in range(len(flow.entering) + 1)]
    _steps(ax, layers, flow.entering, BLUE, projected)
    _plateaus(ax, edges, blocks[:-1], top, "white" if recorded else BLACK)
    _plateaus(ax, layers, flow.entering, top)
    if flow.key:
        _key(ax, flow)
    names = [(0, "vision encoding, by block" if len(blocks) > 2 else "vision encoding")]
    for x, text in (*names, (start(flow, 0), "prefill, by layer")):
        ax.annotate(
            text, (x, 0), (0, -13), ("data", "axes fraction"), textcoords="offset points",
            size=7.5, weight="bold", va="top", annotation_clip=False,
        )  # fmt: skip
    if rules:
        ax.annotate(
            rules, (1, 0), (0, -13.5), "axes fraction", textcoords="offset points", size=SMALL,
            ha="right", va="top", color=GREY, annotation_clip=False,
        )  # fmt: skip
    ax.set(xlim=(0, 1), ylim=(0, top), yticks=[])
    _axis(ax, edges, layers)


def _steps(
    ax: Axes,
    edges: Sequence[float] | np.ndarray,
    counts: Sequence[float],
    colour: str,
    before: float,
    alpha: float = 1.0,
) -> None:
    """Draw the band, and a pale step above it where tokens were just dropped."""
    for number, count in enumerate(counts):
        left, right = edges[number], edges[number + 1]
        ax.fill_between([left, right], 0, count, color=colour, lw=0, alpha=0.8 * alpha)
        if before - count >= 0.5:
            ax.fill_between([left, right], count, before, color=VERMILION, lw=0, alpha=0.3)
            ax.annotate(
                f"−{before - count:.4g}", ((left + right) / 2, before), (0, 1),
                textcoords="offset points", ha="center", va="bottom", size=SMALL,
                color=VERMILION, path_effects=HALO,
            )  # fmt: skip
        before = count


def _plateaus(
    ax: Axes,
    edges: Sequence[float] | np.ndarray,
    counts: Sequence[float],
    top: float,
    inner: str = "white",
) -> None:
    """Write the count once on each stretch of equal counts that is wide enough."""
    first = 0
    for count, stretch in groupby(counts):
        width = len(list(stretch))
        left, right = edges[first], edges[first + width]
        first += width
        if right - left < 0.03:
            continue
        inside = count > 0.2 * top
        ax.annotate(
            f"{count:.4g}", ((left + right) / 2, count), (0, -2 if inside else 1.5),
            textcoords="offset points", ha="center", va="top" if inside else "bottom",
            size=7, color=inner if inside else BLACK, weight="bold",
        )  # fmt: skip


def _key(ax: Axes, flow: Flow) -> None:
    """Draw the key tokens at the bottom of the band, through all layers."""
    ax.fill_between([start(flow, 0), 1], 0, flow.key, color=GREEN, lw=0)
    ax.annotate(
        f"{flow.key:.4g} key tokens always stay", (1, 0), (0, -23), "axes fraction",
        textcoords="offset points", ha="right", va="top", size=SMALL, color=GREEN,
        annotation_clip=False,
    )  # fmt: skip


def _axis(ax: Axes, edges: np.ndarray, layers: Sequence[float]) -> None:
    """Number the blocks and layers under the band."""
    ax.spines[["left", "bottom"]].set_visible(False)
    ticks = []
    for ends, most in ((edges if len(edges) > 2 else (), 8), (layers, 16)):
        count = len(ends) - 1
        for n in range(0, count, max(1, -(-count // most))):
            ticks.append(((ends[n] + ends[n + 1]) / 2, str(n)))
    ax.set_xticks([x for x, _ in ticks], [text for _, text in ticks])
    ax.tick_params(length=0, pad=1.5, labelsize=SMALL)


def draw_cache(ax: Axes, flow: Flow, top: float) -> None:
    """Draw the cached tokens of each layer while decoding, in the scale of the band above."""
    layers = [start(flow, layer) for layer in range(len(flow.entering) + 1)]
    for number, (entered, count) in enumerate(zip(flow.entering, flow.resident, strict=True)):
        ends = [layers[number], layers[number + 1]]
        if entered - count >= 0.5:
            ax.fill_between(ends, count, entered, color=VERMILION, lw=0, alpha=0.3)
        ax.fill_between(ends, 0, count, color=GREY, lw=0, alpha=0.75)
    first = 0
    for count, stretch in groupby(flow.resident):
        width = len(list(stretch))
        middle = (layers[first] + layers[first + width]) / 2
        first += width
        if width * (layers[1] - layers[0]) < 0.03:
            continue
        inside = count > 0.2 * flow.patches
        ax.annotate(
            f"{count:.4g}", (middle, count), (0, -2 if inside else 1.5), ha="center",
            textcoords="offset points", va="top" if inside else "bottom", size=7,
            color="white" if inside else BLACK, weight="bold",
        )  # fmt: skip
    held, entered = float(np.mean(flow.resident)), float(np.mean(flow.entering))
    ax.text(0, top, "decoding", size=7.5, weight="bold", va="top")
    ax.text(
        0, top - 0.16 * flow.patches,
        f"KV cache: {held:.4g} vision tokens per layer,\nof {entered:.4g} that enter it (averages)",
        va="top", size=SMALL, color=GREY, linespacing=1.25,
    )  # fmt: skip
    ax.set(xlim=(0, 1), ylim=(0, top), xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
