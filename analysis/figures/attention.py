"""Scatter of the attention that a filter reads: global share against individual attention.

With two thresholds, a token is dropped iff both values are low. Knows nothing about models: reads
the text attention of a trace. After Figure 3 (b) of MustDrop, arXiv:2411.10803.
"""

import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from analysis.figures.filtering import TESTS, Judged, has_thresholds, judged, saving_words
from analysis.figures.overlays import Panel, framed
from analysis.figures.pictures import Picture, shade
from analysis.figures.style import (
    BLACK,
    BLUE,
    DOUBLE,
    GONE,
    GREEN,
    GREY,
    ORANGE,
    SMALL,
    VERMILION,
    sheet,
    styled,
)
from analysis.figures.traced import Traced
from analysis.records.fates import fates
from mustdrop.runs.trace import Trace

MAX_LAYERS = 4  # columns of the figure
WORDS = 5  # words in a panel
TINTS = (VERMILION, ORANGE, BLUE, GREY)
FACES = ("x", "s", "^", "o")


@styled
def draw(source: Traced, number: int = 0) -> Figure:
    """One column per filter layer: scatter, picture coloured by test, words that saved tokens.

    Args:
        source: Traced sample.
        number: Index of the image that the pictures show.

    Raises:
        ValueError: If the trace has no text attention.
    """
    trace = source.trace
    if not trace.text_attention:
        raise ValueError(f"{source.arm}: the trace has no text attention")
    layers = _chosen(sorted(trace.text_attention))
    thresholds = has_thresholds(trace)
    pictured = trace.pictures and not trace.ledger.videos  # one picture cannot show a video
    picture = np.asarray(trace.picture(number), dtype=float) / 255 if pictured else None
    words = [saving_words(trace, layer) for layer in layers] if thresholds else []
    ratios = [1.0, *([0.95] if picture is not None else []), *([0.5] if any(words) else [])]
    wide = DOUBLE if len(layers) > 2 else 0.55 * DOUBLE
    figure = sheet(wide, sum(ratios) * wide / max(len(layers), 2) * 0.92 + 0.75)
    axes = figure.subplots(
        len(ratios), len(layers), squeeze=False, height_ratios=ratios, sharex="row", sharey="row"
    )
    region = _region(trace, number)
    for column, layer in enumerate(layers):
        tested = judged(trace, layer)
        _scatter(axes[0, column], trace, layer, tested, region, thresholds)
        if picture is not None:
            _map(axes[1, column], trace, layer, tested, picture, number)
        if any(words):
            _words(axes[-1, column], words[column])
    _decades(axes[0, 0])
    axes[0, 0].set_ylabel("largest attention from a word")
    if any(words):
        axes[-1, 0].set_ylabel("saved by\none word", rotation=0, ha="right", va="center")
    head = textwrap.fill(f"{source.arm} · {source.question} {source.verdict}", int(14.5 * wide))
    figure.suptitle(head, size=7.5, weight="bold", x=0.01, ha="left")
    figure.legend(
        handles=_legend(thresholds, trace), loc="outside lower center", ncols=6,
        fontsize=SMALL, columnspacing=1.0, handletextpad=0.3,
    )  # fmt: skip
    return figure


def _chosen(layers: Sequence[int]) -> list[int]:
    """Up to ``MAX_LAYERS`` evenly spaced layers, including the first and the last."""
    indices = np.linspace(0, len(layers) - 1, min(MAX_LAYERS, len(layers))).round().astype(int)
    return [layers[index] for index in indices]


def _region(trace: Trace, number: int) -> Bool[np.ndarray, " seq"]:
    """Mask of the slots whose token carries a patch that holds the answer."""
    out = np.zeros(trace.ledger.seq_len, dtype=bool)
    if trace.region is not None and number == 0:
        _, slots, carries = trace.ledger.image_tokens(number)
        out[slots.numpy()] = carries.numpy()[:, trace.region.ravel()].any(1)
    return out


def _scatter(
    ax: Axes,
    trace: Trace,
    layer: int,
    tested: Judged,
    region: Bool[np.ndarray, " seq"],
    thresholds: bool,
) -> None:
    attention = trace.text_attention[layer]
    x, y = positive(attention.share), positive(attention.largest)
    for test, (tint, face) in enumerate(zip(TINTS, FACES, strict=True)):
        group = tested.test == test
        ax.plot(x[group], y[group], face, ms=2.2, color=tint, mew=0.5, alpha=0.75, mfc=tint)
    ax.plot(x[tested.key], y[tested.key], "o", ms=4.6, mfc="none", mec=GREEN, mew=0.8)
    answer = region[attention.positions]
    ax.plot(x[answer], y[answer], "D", ms=3.4, mfc="none", mec=BLACK, mew=0.6)
    ax.set(xscale="log", yscale="log", xlabel="share of all attention")
    ax.margins(0.1)
    dropped = f"{int(tested.left.sum())} of {len(x)} dropped"
    ax.set_title(f"layer {layer}: {dropped}", loc="left", pad=11)
    gamma, alpha = trace.threshold("gamma"), trace.threshold("alpha")
    if gamma is not None:
        ax.axvline(gamma, color=BLACK, lw=0.7, ls="--")
        _mark(ax, "γ", (gamma, 1), ("data", "axes fraction"), (0, 1))
    if alpha is not None:
        ax.axhline(alpha, color=BLACK, lw=0.7, ls="--")
        _mark(ax, "α", (1, alpha), ("axes fraction", "data"), (5, 0))
    if gamma is not None and alpha is not None:
        # add_artist, unlike add_patch, leaves the axis limits unchanged
        low = Rectangle((1e-12, 1e-12), gamma, alpha, color=VERMILION, alpha=0.07, lw=0)
        ax.add_artist(low)
    if thresholds:
        corners = ((0.02, 0.02), (0.98, 0.02), (0.02, 0.98), (0.98, 0.98))
        for test, (x_corner, y_corner) in enumerate(corners):
            count = int((tested.test == test).sum())
            ax.text(
                x_corner, y_corner, str(count), transform=ax.transAxes, color=TINTS[test],
                size=7.5, weight="bold", ha="left" if x_corner < 0.5 else "right",
                va="bottom" if y_corner < 0.5 else "top",
                bbox={"fc": "white", "ec": "none", "alpha": 0.75, "pad": 0.8},
            )  # fmt: skip


def _decades(ax: Axes) -> None:
    """Put one tick on each decade, or two if there are few decades, as plain numbers."""
    for axis in (ax.xaxis, ax.yaxis):
        low, high = axis.get_view_interval()
        axis.set_major_locator(LogLocator(subs=(1,) if high / low > 300 else (1, 3)))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
        axis.set_minor_formatter(NullFormatter())


def _mark(
    ax: Axes,
    text: str,
    point: tuple[float, float],
    coordinates: tuple[str, str],
    offset: tuple[float, float],
) -> None:
    ax.annotate(
        text, point, offset, coordinates, textcoords="offset points", size=7, ha="center",
        va="bottom" if offset[1] else "center", annotation_clip=False,
    )  # fmt: skip


def positive(values: np.ndarray) -> np.ndarray:
    """Replace zeros, which have no logarithm, by the smallest positive value."""
    nonzero = values[values > 0]
    return np.maximum(values, nonzero.min()) if len(nonzero) else values + 1e-9


def _map(
    ax: Axes,
    trace: Trace,
    layer: int,
    tested: Judged,
    picture: Picture,
    number: int,
) -> None:
    """Draw the picture with each patch in the colour of its token's test result."""
    grid, slots, carries = trace.ledger.image_tokens(number)
    attention = trace.text_attention[layer]
    test_of: Mapping[int, int] = dict(
        zip(attention.positions.tolist(), tested.test.tolist(), strict=True)
    )
    tests = np.full(grid[0] * grid[1], -1)
    for slot, patches in zip(slots.tolist(), carries.numpy(), strict=True):
        if slot in test_of:
            tests[patches] = test_of[slot]
    tests = tests.reshape(grid)
    shown = shade(picture, tests < 0, GONE, 0.85)
    for test, tint in enumerate(TINTS[:3]):
        shown = shade(shown, tests == test, tint, 0.6)
    key = fates(trace.ledger, number).key
    panel = Panel("drop", "", shown, [key] if key.any() else [], GREEN)
    framed(ax, panel, trace.region if number == 0 else None, 1.3, 0.65)


def _words(ax: Axes, words: Counter[str]) -> None:
    """Draw the words that saved the most tokens without help of the share test."""
    ax.spines[:].set_visible(False)
    ax.set(xticks=[], yticks=[], ylim=(WORDS - 0.4, -0.6), xlim=(0, 1))
    most = max(words.values(), default=1)
    for row, (word, count) in enumerate(words.most_common(WORDS)):
        ax.barh(row, 0.5 * count / most, left=0.42, height=0.6, color=BLUE, alpha=0.75)
        ax.text(0.4, row, word, ha="right", va="center", size=SMALL)
        ax.text(0.44 + 0.5 * count / most, row, str(count), va="center", size=SMALL, color=GREY)
    if not words:
        ax.text(0.5, WORDS / 2 - 0.5, "none", ha="center", va="center", size=SMALL, color=GREY)


def _legend(thresholds: bool, trace: Trace) -> list[Line2D]:
    names = TESTS if thresholds else ("dropped", "", "", "kept")
    entries = [
        Line2D([], [], marker=face, ls="none", color=tint, ms=3.5, label=name)
        for name, tint, face in zip(names, TINTS, FACES, strict=True)
        if name
    ]
    rings = [("key token", "o", GREEN, 5.0)] if trace.ledger.protected.any() else []
    rings += [("holds the answer", "D", BLACK, 4.0)] if trace.region is not None else []
    for name, face, tint, size in rings:
        entries.append(
            Line2D([], [], marker=face, ls="none", mfc="none", mec=tint, ms=size, label=name)
        )
    return entries
