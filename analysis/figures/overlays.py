"""What each stage dropped, as a figure: picture, encoder, key tokens, prefill, KV cache.

Drawn from a ledger alone, which says what slot carries what patch. The same inputs give the same
bytes. Knows nothing about models.
"""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from PIL import Image

from analysis.figures.pictures import Mask, Picture, averaged, blend, mask_of, outline, shade
from analysis.figures.style import BLACK, BLUE, GONE, GREEN, ORANGE, STYLE, VERMILION, save
from analysis.records.fates import Fates, fates
from mustdrop.ledger import TokenLedger

COLUMNS = 4
PANEL, TITLE, LINE, FOOT = 2.5, 0.5, 0.24, 0.42  # inches
LETTERS = 10.5  # of the head, in an inch


@dataclass(frozen=True, eq=False)
class Panel:
    """One axes of the figure.

    Attributes:
        title: What it shows, with the number of tokens.
        picture: The image as this panel shows it.
        outlines: Groups of patches with a line around each.
        colour: Of the lines.
    """

    title: str
    picture: Picture
    outlines: Sequence[Mask] = ()
    colour: str = BLACK


def draw(
    image: Image.Image,
    ledger: TokenLedger,
    path: Path | str,
    *,
    title: str = "",
    question: str = "",
    answer: str = "",
    target: str = "",
    number: int = 0,
    region: Mask | None = None,
    grid: tuple[int, int] | None = None,
) -> Path:
    """Draw the life of an image's patches into a file.

    Args:
        image: The image (crop, frame) that the patches tile.
        ledger: The record of its prompt.
        path: Where to; the ending says the format.
        title: Such as the method and its budget.
        question: What was asked.
        answer: What the model said.
        target: What it should have said; says whether the answer is right.
        number: Which image of the prompt, from 0.
        region: The patches that hold the answer, where that is known; outlined in every panel.
        grid: See :func:`analysis.records.fates.fates`.

    Returns:
        The path.
    """
    with matplotlib.rc_context(STYLE):
        shown = panels(image, fates(ledger, number, grid))
        lines = _lines(title, question, answer, target)
        return save(figure(shown, lines, region), Path(path))


def panels(image: Image.Image, life: Fates) -> list[Panel]:
    """The picture, a panel for each stage that did something, the cache while decoding."""
    picture = np.asarray(image.convert("RGB"), dtype=float) / 255
    patches = life.grid[0] * life.grid[1]
    out = [Panel(f"picture\n{patches} patches", picture)]
    if life.merged or not life.arrived.all():
        merged = [mask_of(group, life.grid) for group in life.merged]
        mixed = averaged(picture, merged)
        out.append(
            Panel(
                f"encoder: {patches} → {life.tokens} tokens\n{_encoder(life)}",
                shade(mixed, ~life.arrived, GONE, 0.85),
                merged,
                BLUE,
            )
        )
    if life.key.any():
        others = shade(picture, ~life.key, GONE, 0.72)
        count = f"{int(life.key.sum())} of {patches} patches"
        out.append(Panel(f"key tokens\n{count}, never dropped", others, [life.key], GREEN))
    for drop in life.drops:
        gone = shade(picture, ~drop.alive & ~drop.dropped, GONE, 0.85)
        when = f"after layer {drop.first}" if drop.first >= 0 else "before layer 0"
        if drop.last != drop.first:
            when = f"after layers {drop.first} to {drop.last}"
        counts = f"{drop.before} − {drop.before - drop.left} = {drop.left} tokens"
        out.append(Panel(f"{when}\n{counts}", shade(gone, drop.dropped, VERMILION, 0.62)))
    cached = blend(picture, GONE, 0.85 * (1 - life.resident))
    out.append(Panel(f"KV cache while decoding\n{life.resident_tokens:.4g} tokens a layer", cached))
    return out


def figure(
    shown: Sequence[Panel], lines: Sequence[tuple[str, str]], region: Mask | None = None
) -> Figure:
    """Lay panels out, under lines of (text, colour)."""
    columns = min(len(shown), COLUMNS) if len(shown) != 5 else 3
    rows = -(-len(shown) // columns)
    height, width = shown[0].picture.shape[:2]
    tall = PANEL * min(max(height / width, 0.4), 2.5)
    wide = max(columns * PANEL, 5.0)
    lines = [(textwrap.fill(text, int(wide * LETTERS)), colour) for text, colour in lines]
    head = LINE * sum(text.count("\n") + 1 for text, _ in lines) + 0.15
    size = (wide, rows * (tall + TITLE) + head + FOOT)
    canvas = Figure(figsize=size)
    FigureCanvasAgg(canvas)
    axes = canvas.subplots(rows, columns, squeeze=False)
    canvas.subplots_adjust(
        left=0.02,
        right=0.98,
        top=1 - (head + TITLE) / size[1],
        bottom=FOOT / size[1],
        wspace=0.05,
        hspace=TITLE / tall,
    )
    for index, place in enumerate(axes.flat):
        if index < len(shown):
            _fill(place, shown[index], region)
        else:
            place.set_visible(False)
    y = 1 - 0.1 / size[1]
    for number, (text, colour) in enumerate(lines):
        weight = "normal" if number else "bold"
        canvas.text(0.02, y, text, va="top", size=10.5, weight=weight, color=colour)
        y -= LINE * (text.count("\n") + 1) / size[1]
    marks = _legend(shown, region is not None and bool(region.any()))
    canvas.legend(handles=marks, loc="lower center", ncols=5, frameon=False, fontsize=8.5)
    return canvas


def _fill(place: Axes, panel: Panel, region: Mask | None) -> None:
    height, width = panel.picture.shape[:2]
    place.imshow(panel.picture, interpolation="nearest", extent=(0, width, height, 0))
    for masks, colour in (
        ([] if region is None else [region], BLACK),
        (panel.outlines, panel.colour),
    ):
        edges = [
            edge * (width / mask.shape[1], height / mask.shape[0])
            for mask in masks
            for edge in outline(mask)
        ]
        place.add_collection(LineCollection(edges, colors="white", linewidths=2.2))
        place.add_collection(LineCollection(edges, colors=colour, linewidths=1.1))
    place.spines[:].set_visible(False)
    place.set_title(panel.title)
    place.set(xticks=[], yticks=[], xlim=(0, width), ylim=(height, 0))


def _legend(shown: Sequence[Panel], region: bool) -> list[Patch]:
    titles = " ".join(panel.title for panel in shown)
    entries = []
    if region:
        entries.append(Patch(facecolor="none", edgecolor=BLACK, label="holds the answer"))
    if any(len(panel.outlines) and panel.colour == BLUE for panel in shown):
        entries.append(Patch(facecolor="none", edgecolor=BLUE, label="merged into one token"))
    if "key tokens" in titles:
        entries.append(Patch(facecolor="none", edgecolor=GREEN, label="key token"))
    if any(panel.title.startswith(("after", "before")) for panel in shown):
        entries.append(Patch(facecolor=VERMILION, alpha=0.75, label="dropped here"))
    if len(shown) > 2:
        entries.append(Patch(facecolor=GONE, edgecolor="0.6", label="gone"))
    return entries


def _lines(title: str, question: str, answer: str, target: str) -> list[tuple[str, str]]:
    """The head of the figure, as (text, colour)."""
    lines = [(text, BLACK) for text in (title, question) if text]
    if answer or target:
        right = answer.strip().lower() == target.strip().lower()
        said = f'answer: "{answer}"'
        if target:
            said += "  (right)" if right else f'  (wrong, expected "{target}")'
        colour = BLACK if not target else GREEN if right else ORANGE
        lines.append((said, colour))
    return lines or [("", BLACK)]


def _encoder(life: Fates) -> str:
    gone = int((~life.arrived).sum())
    told = []
    if life.merged:
        sizes = {len(group) for group in life.merged}
        what = f"{sizes.pop()} patches" if len(sizes) == 1 else "several patches"
        told.append(f"{len(life.merged)} merge {what}")
    if gone:
        told.append(f"{gone} patches dropped")
    return ", ".join(told)
