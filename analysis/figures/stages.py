"""Diagram of the stages of a run: encoder, prefill and decoding, and the tokens left in each.

The height of the band is the number of vision tokens of one traced sample, with pictures of the
remaining patches above it, or the mean over the samples of a run. Knows nothing about methods: a
stage that changed nothing is not drawn. After Figure 2 of MustDrop, arXiv:2411.10803.
"""

import textwrap

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import ConnectionPatch

from analysis.figures.bands import ENCODER, draw_band, draw_cache, start
from analysis.figures.flow import Flow, of_cell, of_ledger
from analysis.figures.overlays import Panel, framed, legend, panels
from analysis.figures.style import BLACK, DOUBLE, GREY, SMALL, sheet, styled
from analysis.figures.traced import Traced, named
from analysis.records.cells import RunResult
from analysis.records.fates import fates

# heights in inches, from the top; the cache is drawn in the scale of the band
HEAD, LINE = 0.22, 0.13
TITLES, THUMBNAIL, TIES = 0.28, 1.12, 0.3
BAND, NAMES, CACHE, FOOT = 1.15, 0.46, 0.45, 0.24
SHOWN = 8  # pictures above the band


@styled
def draw(source: Traced | RunResult) -> Figure:
    """Draw the diagram of a traced sample, or of the mean of a run.

    Args:
        source: Sample with its trace, or a run; a run has no pictures.
    """
    if isinstance(source, RunResult):
        flow, shown, ends, region = of_cell(source), [], [], None
        head = f"{named(source)} · mean of {source['n']} samples"
        rules = "drops in the encoder are shown before layer 0"
    else:
        flow, region = of_ledger(source.trace.ledger), source.trace.region
        shown, ends = _pictures(source)
        head = f"{source.arm} · {source.question} {source.verdict}"
        rules = _rules(source)
    size = min(THUMBNAIL, 0.9 * DOUBLE / len(shown)) if shown else 0.0
    lines = textwrap.wrap(head, int(14 * DOUBLE))
    header = HEAD + LINE * (len(lines) - 1)
    above = header + (TITLES + size + TIES if shown else 0.12)
    cache = max(CACHE, BAND * max(*flow.resident, *flow.entering) / flow.patches)
    tall = above + BAND + NAMES + cache + (FOOT if shown else 0.05)
    figure = sheet(DOUBLE, tall, layout=None)

    def add_axes(left: float, top: float, width: float, height: float) -> Axes:
        return figure.add_axes((left, 1 - (top + height) / tall, width, height / tall))

    figure.text(0.015, 1 - 0.04 / tall, "\n".join(lines), va="top", size=7.5, weight="bold")
    band = add_axes(0.015, above, 0.97, BAND)
    band.patch.set_visible(False)
    draw_band(band, flow, rules)
    draw_cache(
        add_axes(0.015, above + BAND + NAMES, 0.97, cache), flow, flow.patches * cache / BAND
    )
    wide = 0.97 / max(len(shown), 1)
    for number, (panel, end) in enumerate(zip(shown, ends, strict=True)):
        left = 0.015 + wide * (number + 0.5) - size / DOUBLE / 2
        thumbnail = add_axes(left, header + TITLES, size / DOUBLE, size)
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
    """Panels above the band, and the layer each belongs to; below -1 is the encoder.

    There are none for a video, whose frames :mod:`analysis.figures.film` shows.
    """
    trace = source.trace
    if not trace.pictures or trace.ledger.videos:
        return [], []
    others = 3 + bool(trace.ledger.protected.any())
    life = fates(trace.ledger, most_drops=SHOWN - others)
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
    """Rule of the filter with its thresholds; empty without thresholds."""
    gamma, alpha = (source.trace.threshold(name) for name in ("gamma", "alpha"))
    tests = []
    if gamma is not None:
        tests.append(f"share ≤ γ = {gamma:.3g}")
    if alpha is not None:
        tests.append(f"largest from a word < α = {alpha:.3g}")
    return f"dropped if {' and '.join(tests)}" if tests else ""


def _event(flow: Flow, end: float) -> tuple[float, float]:
    """Point on the band that a picture belongs to: x, and the number of tokens there."""
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
    return start(flow, layer + 0.5), flow.entering[layer]


def _tie(figure: Figure, thumbnail: Axes, band: Axes, point: tuple[float, float]) -> None:
    """Draw a line from a picture to its point on the band."""
    tie = ConnectionPatch(
        (0.5, -0.01),
        point,
        "axes fraction",
        "data",
        axesA=thumbnail,
        axesB=band,
        color=GREY,
        lw=0.5,
    )
    tie.set_zorder(-1)  # below the numbers
    figure.add_artist(tie)
    band.plot(*point, "o", ms=2.5, color=BLACK, zorder=5, clip_on=False)


def _short(panel: Panel) -> str:
    """Title of a panel, short enough for a small picture."""
    first, second = panel.title.split("\n")
    number = second.split()[0]
    if panel.stage == "encoder":
        return f"after the encoder\n{first.split()[-2]} tokens"
    if panel.stage == "key":
        return f"key tokens\n{number} patches"
    if panel.stage == "drop":
        return f"{first}\n{second.split()[-2]} tokens"
    if panel.stage == "cache":
        return f"KV cache\n{number} per layer"
    return panel.title
