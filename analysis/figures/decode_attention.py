"""Where new tokens look while decoding: how much to vision tokens, how concentrated, at what.

Each arm is one run's trace of the same sample. Knows nothing about models. After Figure 4 of
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

MOST = 6  # layers with a map
AGAIN = ("--", "-.", ":")  # lines of one method at several budgets
TOP = 0.1  # share of the tokens whose attention tells how concentrated it is


def concentration(gaze: DecodeAttention) -> float:
    """Share of the attention to vision tokens that the most attended tenth of them gets."""
    count = max(1, round(TOP * len(gaze.vision)))
    total = float(gaze.vision.sum())
    return float(np.sort(gaze.vision)[::-1][:count].sum()) / total if total else float("nan")


def density(trace: Trace, layer: int, number: int = 0) -> Float[np.ndarray, "rows columns"]:
    """Attention to each patch, a token's shared evenly by the patches it carries; NaN: no token."""
    grid, slots, carries = trace.ledger.image_tokens(number)
    gaze = trace.decode_attention[layer]
    of = dict(zip(gaze.positions.tolist(), gaze.vision.tolist(), strict=True))
    out = np.full(grid[0] * grid[1], np.nan)
    for slot, patches in zip(slots.tolist(), carries.numpy(), strict=True):
        if slot in of:
            out[patches] = np.nan_to_num(out[patches]) + of[slot] / patches.sum()
    return out.reshape(grid)


@styled
def draw(arms: Sequence[Traced], number: int = 0) -> Figure:
    """Lines by layer above; below, a row of maps for each arm.

    Args:
        arms: Traces of one sample, vanilla first.
        number: Which of its images the maps show.

    Raises:
        ValueError: If they are of several samples, or one has no gaze.
    """
    if len({(arm.task, arm.doc_id) for arm in arms}) != 1:
        raise ValueError(f"expected traces of one sample, got {[arm.doc_id for arm in arms]}")
    for arm in arms:
        if not arm.trace.decode_attention:
            raise ValueError(f"{arm.arm}: no decoding is in the trace of sample {arm.doc_id}")
    layers = _chosen(sorted(arms[0].trace.decode_attention))
    columns = len(layers) + 1
    side = DOUBLE / columns
    figure = sheet(DOUBLE, 1.75 + len(arms) * (side + 0.16))
    parts = figure.subfigures(2, 1, squeeze=False, height_ratios=[1.75, len(arms) * (side + 0.16)])
    upper, lower = parts.flat
    total, top = upper.subplots(1, 2)
    _lines(total, arms, [[100 * (1 - g.text) for g in _gazes(arm)] for arm in arms])
    total.set_title("attention of new tokens to vision tokens, %", loc="left")
    _lines(top, arms, [[100 * concentration(g) for g in _gazes(arm)] for arm in arms])
    top.set_title("of that, to the top tenth of the vision tokens, %", loc="left")
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
    for place, layer in zip(axes[0, 1:], layers, strict=True):
        place.set_title(f"layer {layer}")
    shades = lower.colorbar(
        _norm(1.0)[1], ax=axes, orientation="horizontal", aspect=50, pad=0.02, fraction=0.05
    )
    shades.set_ticks([0, 0.25, 1], labels=["0", "¼", "most in the layer"])
    shades.ax.tick_params(labelsize=SMALL, length=2)
    shades.set_label("attention to a patch (square-root scale)", size=SMALL)
    return figure


def _chosen(layers: Sequence[int]) -> list[int]:
    """Some layers, the early ones closer together: what changes, changes there."""
    places = np.linspace(0, 1, min(MOST, len(layers))) ** 1.6 * (len(layers) - 1)
    found: list[int] = []
    for place in places.round().astype(int):
        found.append(max(int(place), found[-1] + 1) if found else int(place))
    return [layers[min(place, len(layers) - 1)] for place in found]


def _gazes(arm: Traced) -> list[DecodeAttention]:
    return [arm.trace.decode_attention[layer] for layer in sorted(arm.trace.decode_attention)]


def _lines(place: Axes, arms: Sequence[Traced], values: Sequence[Sequence[float]]) -> None:
    drawn: Counter[str] = Counter()
    for arm, line in zip(arms, values, strict=True):
        method = name_of(arm.cell)
        style = look(method)
        if drawn[method]:  # the same method at another budget
            style["linestyle"] = AGAIN[drawn[method] % len(AGAIN)]
        drawn[method] += 1
        place.plot(sorted(arm.trace.decode_attention), line, ms=3, label=arm.arm, **style)
    place.set(ylim=(0, None), xlabel="layer")
    place.xaxis.set_major_locator(MaxNLocator(integer=True))
    rule(place)


def _row(row: Sequence[Axes], arm: Traced, layers: Sequence[int], number: int) -> None:
    trace = arm.trace
    region = trace.region if number == 0 else None
    wide, tall = (
        trace.picture(number).size if trace.pictures else trace.ledger.image_tokens(number)[0][::-1]
    )
    extent = (0.0, float(wide), float(tall), 0.0)  # the picture's own proportions
    if trace.pictures:
        shown = panels(trace.picture(number), fates(trace.ledger, number))[-1].picture
        framed(row[0], Panel("cache", "", shown), region, 1.2, 0.6)
    else:
        row[0].set(xticks=[], yticks=[])
        row[0].spines[:].set_visible(False)
    row[0].set_ylabel(arm.arm)
    for place, layer in zip(row[1:], layers, strict=True):
        place.set(xticks=[], yticks=[])
        place.spines[:].set_visible(False)
        if layer not in trace.decode_attention:
            place.text(0.5, 0.5, "none", ha="center", va="center", size=SMALL, color=GREY)
            continue
        heat = density(trace, layer, number)
        most = float(np.nanmax(heat)) if np.isfinite(heat).any() else 1.0
        colours, scale = _norm(most or 1.0)
        place.set_facecolor(GONE)
        place.imshow(np.ma.masked_invalid(heat), cmap=scale.cmap, norm=colours, extent=extent)


def _norm(most: float) -> tuple[PowerNorm, ScalarMappable]:
    """Square roots: the few that are looked at most leave the rest to be seen."""
    norm = PowerNorm(0.5, 0.0, most)
    return norm, ScalarMappable(norm, HEAT)
