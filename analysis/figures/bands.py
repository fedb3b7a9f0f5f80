"""Vision tokens as a band as high as they are many: through encoder and prefill, and in the cache.

What has just left stands above the band as a pale step. Knows nothing about pictures.
"""

from collections.abc import Sequence
from itertools import groupby

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke

from analysis.figures.flow import Flow
from analysis.figures.style import BLACK, BLUE, GREEN, GREY, SKY, SMALL, VERMILION

ENCODER = 0.3  # share of the width
HALO = [withStroke(linewidth=2.2, foreground="white")]  # lines to the pictures pass behind numbers


def start(flow: Flow, layer: float) -> float:
    """Where a decoder layer begins, from 0 to 1."""
    return ENCODER + 0.02 + (0.98 - ENCODER) * layer / len(flow.entering)


def draw_band(place: Axes, flow: Flow, rules: str) -> None:
    """Tokens through the encoder and the prefill, the lost ones as steps."""
    top = flow.patches
    blocks = list(flow.encoder) or [flow.patches, flow.patches]
    edges = np.linspace(0, ENCODER, len(blocks))
    told = bool(flow.encoder)
    _steps(place, edges, blocks[:-1], SKY, flow.patches, alpha=1.0 if told else 0.4)
    handed = blocks[-1] if told else flow.patches
    place.fill_between([ENCODER, start(flow, 0)], 0, handed, color=SKY, lw=0, alpha=0.45)
    layers = [start(flow, layer) for layer in range(len(flow.entering) + 1)]
    _steps(place, layers, flow.entering, BLUE, handed)
    _plateaus(place, edges, blocks[:-1], top, "white" if told else BLACK)
    _plateaus(place, layers, flow.entering, top)
    if flow.key:
        _key(place, flow)
    names = [(0, "vision encoding, by block" if len(blocks) > 2 else "vision encoding")]
    for x, text in (*names, (start(flow, 0), "prefill, by layer")):
        place.annotate(
            text, (x, 0), (0, -13), ("data", "axes fraction"), textcoords="offset points",
            size=7.5, weight="bold", va="top", annotation_clip=False,
        )  # fmt: skip
    if rules:
        place.annotate(
            rules, (1, 0), (0, -13.5), "axes fraction", textcoords="offset points", size=SMALL,
            ha="right", va="top", color=GREY, annotation_clip=False,
        )  # fmt: skip
    place.set(xlim=(0, 1), ylim=(0, top), yticks=[])
    _axis(place, edges, layers)


def _steps(
    place: Axes,
    edges: Sequence[float] | np.ndarray,
    counts: Sequence[float],
    colour: str,
    before: float,
    alpha: float = 1.0,
) -> None:
    """The band, and above it a pale step where tokens have just left."""
    for number, count in enumerate(counts):
        left, right = edges[number], edges[number + 1]
        place.fill_between([left, right], 0, count, color=colour, lw=0, alpha=0.8 * alpha)
        if before - count >= 0.5:
            place.fill_between([left, right], count, before, color=VERMILION, lw=0, alpha=0.3)
            place.annotate(
                f"−{before - count:.4g}", ((left + right) / 2, before), (0, 1),
                textcoords="offset points", ha="center", va="bottom", size=SMALL,
                color=VERMILION, path_effects=HALO,
            )  # fmt: skip
        before = count


def _plateaus(
    place: Axes,
    edges: Sequence[float] | np.ndarray,
    counts: Sequence[float],
    top: float,
    inner: str = "white",
) -> None:
    """How many tokens, once for each stretch of equal counts that has room for it."""
    at = 0
    for count, stretch in groupby(counts):
        wide = len(list(stretch))
        left, right = edges[at], edges[at + wide]
        at += wide
        if right - left < 0.03:
            continue
        inside = count > 0.2 * top
        place.annotate(
            f"{count:.4g}", ((left + right) / 2, count), (0, -2 if inside else 1.5),
            textcoords="offset points", ha="center", va="top" if inside else "bottom",
            size=7, color=inner if inside else BLACK, weight="bold",
        )  # fmt: skip


def _key(place: Axes, flow: Flow) -> None:
    """Key tokens, at the bottom of the band through all layers."""
    place.fill_between([start(flow, 0), 1], 0, flow.key, color=GREEN, lw=0)
    place.annotate(
        f"{flow.key:.4g} key tokens always stay", (1, 0), (0, -23), "axes fraction",
        textcoords="offset points", ha="right", va="top", size=SMALL, color=GREEN,
        annotation_clip=False,
    )  # fmt: skip


def _axis(place: Axes, edges: np.ndarray, layers: Sequence[float]) -> None:
    """Blocks and layers by number, under the band."""
    place.spines[["left", "bottom"]].set_visible(False)
    ticks = []
    for ends, room in ((edges if len(edges) > 2 else (), 8), (layers, 16)):
        count = len(ends) - 1
        for n in range(0, count, max(1, -(-count // room))):
            ticks.append(((ends[n] + ends[n + 1]) / 2, str(n)))
    place.set_xticks([x for x, _ in ticks], [text for _, text in ticks])
    place.tick_params(length=0, pad=1.5, labelsize=SMALL)


def draw_cache(place: Axes, flow: Flow, top: float) -> None:
    """What each layer's cache holds while decoding, in the scale of the band above."""
    layers = [start(flow, layer) for layer in range(len(flow.entering) + 1)]
    for number, (entered, count) in enumerate(zip(flow.entering, flow.resident, strict=True)):
        ends = [layers[number], layers[number + 1]]
        if entered - count >= 0.5:
            place.fill_between(ends, count, entered, color=VERMILION, lw=0, alpha=0.3)
        place.fill_between(ends, 0, count, color=GREY, lw=0, alpha=0.75)
    at = 0
    for count, stretch in groupby(flow.resident):
        wide = len(list(stretch))
        middle = (layers[at] + layers[at + wide]) / 2
        at += wide
        if wide * (layers[1] - layers[0]) < 0.03:
            continue
        inside = count > 0.2 * flow.patches
        place.annotate(
            f"{count:.4g}", (middle, count), (0, -2 if inside else 1.5), ha="center",
            textcoords="offset points", va="top" if inside else "bottom", size=7,
            color="white" if inside else BLACK, weight="bold",
        )  # fmt: skip
    held, entered = float(np.mean(flow.resident)), float(np.mean(flow.entering))
    place.text(0, top, "decoding", size=7.5, weight="bold", va="top")
    place.text(
        0, top - 0.16 * flow.patches,
        f"KV cache: {held:.4g} vision tokens a layer,\nof {entered:.4g} that enter it, on average",
        va="top", size=SMALL, color=GREY, linespacing=1.25,
    )  # fmt: skip
    place.set(xlim=(0, 1), ylim=(0, top), xticks=[], yticks=[])
    place.spines[:].set_visible(False)
