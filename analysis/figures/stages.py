"""The stages of a run as one diagram: encoder, prefill, decoding, and the tokens left in each.

The height of the band is the number of vision tokens: of one traced sample, with what was left of
the picture above it, or the mean over the samples of a run. Knows nothing about methods: a stage
that did nothing is not drawn. After Figure 2 of MustDrop, arXiv:2411.10803.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from math import isnan

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import ConnectionPatch

from analysis.figures.overlays import Panel, framed, legend, panels
from analysis.figures.style import BLACK, BLUE, DOUBLE, GREEN, GREY, SKY, SMALL, VERMILION
from analysis.figures.style import sheet, styled
from analysis.figures.traced import Traced, named
from analysis.records.cells import Cell
from analysis.records.fates import fates
from analysis.figures.pictures import Mask
from mustdrop.ledger import TokenLedger

ENCODER = 0.3  # share of the width
# inches, from the top; the cache hangs in the scale of the band
HEAD, TITLES, THUMBNAIL, TIES, BAND, NAMES, CACHE, FOOT = 0.22, 0.28, 1.12, 0.3, 1.15, 0.4, 0.45, 0.24
SHOWN = 8  # pictures above the band


@dataclass(frozen=True, eq=False)
class Flow:
    """How many vision tokens there were where.

    Attributes:
        encoder: Tokens at the input of each block, and at the projector's; of an encoder that was
            left alone two numbers; empty if that is not on record.
        entering: Tokens at the input of each decoder layer.
        resident: Tokens in each layer's KV cache while decoding.
        key: Key tokens, never dropped.
        patches: Tokens of the picture before anything left.
    """

    encoder: Sequence[float]
    entering: Sequence[float]
    resident: Sequence[float]
    key: float
    patches: float


def of_ledger(ledger: TokenLedger) -> Flow:
    """The flow of one sample, its images together."""
    blocks = [list(image.values()) for image in ledger.encoder]
    total = [float(sum(counts)) for counts in zip(*blocks, strict=True)]
    entering = [float(n) for n in ledger.vision_per_layer()]
    resident = [float(n) for n in ledger.resident_per_layer()]
    patches = total[0] if total else float(ledger.vision.sum())
    return Flow(total or [patches, patches], entering, resident, float(ledger.protected.sum()), patches)


def of_cell(cell: Cell) -> Flow:
    """The mean over a run's samples; what happened in the encoder is not on record."""
    model = cell["config"]["model"]
    entering, resident = (
        np.array(cell.samples[name].tolist(), dtype=float).mean(0).tolist()
        for name in ("vision_tokens", "resident_tokens")
    )
    return Flow([], entering, resident, 0.0, float(model.get("vision_tokens") or max(entering)))


@styled
def draw(source: Traced | Cell) -> Figure:
    """The diagram of a traced sample, or of a run's mean.

    Args:
        source: A sample with its trace; or a run, which has no pictures.
    """
    if isinstance(source, Cell):
        flow, shown, ends, region = of_cell(source), [], [], None
        head = f"{named(source)} · mean of {source['n']} samples"
        rules = "what left in the encoder is shown as leaving before layer 0"
    else:
        flow, region = of_ledger(source.trace.ledger), source.trace.region
        shown, ends = _pictures(source)
        head = f"{source.arm} · {source.question} {source.verdict}"
        rules = _rules(source)
    size = min(THUMBNAIL, 0.9 * DOUBLE / len(shown)) if shown else 0.0
    above = HEAD + (TITLES + size + TIES if shown else 0.12)
    hanging = max(CACHE, BAND * max(*flow.resident, *flow.entering) / flow.patches)
    tall = above + BAND + NAMES + hanging + (FOOT if shown else 0.05)
    figure = sheet(DOUBLE, tall, layout=None)

    def place(left: float, top: float, width: float, height: float) -> Axes:
        return figure.add_axes((left, 1 - (top + height) / tall, width, height / tall))

    figure.text(0.015, 1 - 0.04 / tall, head, va="top", size=7.5, weight="bold", color=BLACK)
    band = place(0.015, above, 0.97, BAND)
    _band(band, flow, rules)
    _cache(place(0.015, above + BAND + NAMES, 0.97, hanging), flow, flow.patches * hanging / BAND)
    wide = 0.97 / max(len(shown), 1)
    for number, (panel, end) in enumerate(zip(shown, ends, strict=True)):
        left = 0.015 + wide * (number + 0.5) - size / DOUBLE / 2
        thumbnail = place(left, HEAD + TITLES, size / DOUBLE, size)
        framed(thumbnail, panel, region, light=1.3, dark=0.65)
        thumbnail.set_title(_short(panel), size=SMALL, pad=2, linespacing=1.15)
        _tie(figure, thumbnail, band, _event(flow, end))
    if shown:
        figure.legend(
            handles=legend(shown, region is not None), loc="lower right", ncols=5, fontsize=SMALL,
            bbox_to_anchor=(0.985, 0.0), borderaxespad=0.1, handlelength=1.2,
        )  # fmt: skip
    return figure


def _pictures(source: Traced) -> tuple[list[Panel], list[float]]:
    """What to show above the band, and where on it: layers; below -1 in the encoder."""
    trace = source.trace
    if not trace.pictures:
        return [], []
    taken = 3 + bool(trace.ledger.protected.any())
    life = fates(trace.ledger, most_drops=SHOWN - taken)
    shown = panels(trace.picture(), life)
    ends = []
    drops = iter(life.drops)
    for panel in shown:
        if panel.stage == "picture":
            ends.append(-3.0)
        elif panel.stage == "encoder":
            ends.append(-2.0)
        elif panel.stage == "key":
            ends.append(-1.5)
        elif panel.stage == "drop":
            ends.append(float(next(drops).last))
        else:
            ends.append(float(trace.ledger.depth))
    return shown, ends


def _rules(source: Traced) -> str:
    """The rule of the filter, where the run had thresholds."""
    trace = source.trace
    tests = []
    if not isnan(trace.gamma):
        tests.append(f"share ≤ γ = {trace.gamma:.3g}")
    if not isnan(trace.alpha):
        tests.append(f"most from a word < α = {trace.alpha:.3g}")
    return f"a token leaves if {' and '.join(tests)}" if tests else ""


def _x(flow: Flow, layer: float) -> float:
    """Where a decoder layer begins, from 0 to 1."""
    return ENCODER + 0.02 + (0.98 - ENCODER) * layer / len(flow.entering)


def _event(flow: Flow, end: float) -> tuple[float, float]:
    """Where on the band a picture belongs: x, and the tokens there."""
    depth = len(flow.entering)
    if end == -3:
        return 0.008, flow.patches
    if end == -2:
        counts = list(flow.encoder)
        blocks = [n for n in range(1, len(counts)) if counts[n] != counts[n - 1]]
        after = blocks[-1] if blocks else len(counts) - 1
        return ENCODER * min(after + 0.5, len(counts) - 1) / max(len(counts) - 1, 1), counts[after]
    if end == -1.5:
        return ENCODER + 0.01, flow.entering[0]
    if end == depth:
        return 0.992, flow.entering[-1]
    layer = min(int(end) + 1, depth - 1)
    return _x(flow, layer + 0.5), flow.entering[layer]


def _band(place: Axes, flow: Flow, rules: str) -> None:
    """Tokens through the encoder and the prefill, the lost ones as steps."""
    top = flow.patches
    blocks = list(flow.encoder) or [flow.patches, flow.patches]
    edges = np.linspace(0, ENCODER, len(blocks))
    told = bool(flow.encoder)
    _steps(place, edges, blocks[:-1], SKY, flow.patches, alpha=1.0 if told else 0.4)
    handed = blocks[-1] if told else flow.patches
    place.fill_between([ENCODER, _x(flow, 0)], 0, handed, color=SKY, lw=0, alpha=0.45)
    layers = [_x(flow, layer) for layer in range(len(flow.entering) + 1)]
    _steps(place, layers, flow.entering, BLUE, handed)
    _plateaus(place, edges, blocks[:-1], top, "white" if told else BLACK)
    _plateaus(place, layers, flow.entering, top)
    if flow.key:
        _key(place, flow)
    names = [(0, "vision encoding, by block" if len(blocks) > 2 else "vision encoding")]
    for x, text in (*names, (_x(flow, 0), "prefill, by layer")):
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
                color=VERMILION,
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
    place.fill_between([_x(flow, 0), 1], 0, flow.key, color=GREEN, lw=0)
    last = flow.entering[-1]
    within = last - flow.key > 0.3 * flow.patches
    place.annotate(
        f"of them {flow.key:.4g} key tokens", (0.94, flow.key if within else last), (0, 1.5),
        textcoords="offset points", ha="right", va="bottom", size=SMALL,
        color="white" if within else GREEN,
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


def _cache(place: Axes, flow: Flow, top: float) -> None:
    """What each layer's cache holds while decoding, hanging down."""
    layers = [_x(flow, layer) for layer in range(len(flow.entering) + 1)]
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
            f"{count:.4g}", (middle, count), (0, 2 if inside else -1.5), ha="center",
            textcoords="offset points", va="bottom" if inside else "top", size=7,
            color="white" if inside else BLACK, weight="bold",
        )  # fmt: skip
    mean = float(np.mean(flow.resident))
    place.text(0, 0.0, "decoding", size=7.5, weight="bold", va="top")
    place.text(
        0, 0.16 * flow.patches, f"KV cache of each layer:\n{mean:.4g} vision tokens on average", va="top",
        size=SMALL, color=GREY, linespacing=1.25,
    )  # fmt: skip
    place.set(xlim=(0, 1), ylim=(top, 0), xticks=[], yticks=[])
    place.spines[:].set_visible(False)


def _tie(figure: Figure, thumbnail: Axes, band: Axes, point: tuple[float, float]) -> None:
    """A line from a picture to where on the band it belongs."""
    tie = ConnectionPatch(
        (0.5, -0.01), point, "axes fraction", "data", axesA=thumbnail, axesB=band, color=GREY, lw=0.5
    )
    figure.add_artist(tie)
    band.plot(*point, "o", ms=2.5, color=BLACK, zorder=5, clip_on=False)


def _short(panel: Panel) -> str:
    """A panel's title, short enough for a small picture."""
    first, second = panel.title.split("\n")
    number = second.split()[0]
    if panel.stage == "encoder":
        return f"after the encoder\n{first.split()[-2]} tokens"
    if panel.stage == "key":
        return f"key tokens\n{number} patches"
    if panel.stage == "drop":
        return f"{first}\n{second.split()[-2]} tokens"
    if panel.stage == "cache":
        return f"KV cache\n{number} a layer"
    return panel.title
