"""Figure of the patches that each stage dropped: picture, encoder, key tokens, prefill, KV cache.

Reads only a ledger, which records the patches that each slot carries. The same inputs give the same
bytes. Knows nothing about models. After Figure 3 (a) of MustDrop, arXiv:2411.10803.
"""

import textwrap
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from PIL import Image

from analysis.figures.pictures import Mask, Picture, averaged, blend, mask_of, outline, shade
from analysis.figures.style import (
    BLACK,
    BLUE,
    DOUBLE,
    GONE,
    GREEN,
    ORANGE,
    SMALL,
    VERMILION,
    save,
    sheet,
    styled,
)
from analysis.figures.traced import Traced
from analysis.records.fates import Drop, Fates, fates
from mustdrop.ledger import TokenLedger

COLUMNS, WIDEST = 4, 2.2
TITLE, LINE, FOOT, EDGE = 0.34, 0.16, 0.24, 0.03  # inches
LETTERS = 15  # characters of the header per inch
LEGEND = {
    "region": Patch(facecolor="none", edgecolor=BLACK, label="holds the answer"),
    "encoder": Patch(facecolor="none", edgecolor=BLUE, label="merged into one token"),
    "key": Patch(facecolor="none", edgecolor=GREEN, label="key token"),
    "drop": Patch(facecolor=VERMILION, alpha=0.75, label="dropped here"),
    "gone": Patch(facecolor=GONE, edgecolor="0.6", label="dropped earlier"),
}


Stage = Literal["picture", "encoder", "key", "drop", "cache"]


@dataclass(frozen=True, eq=False)
class Panel:
    """One panel of the figure.

    Attributes:
        stage: Stage that the panel shows.
        title: Title with the number of tokens.
        picture: Image to draw.
        outlines: Groups of patches to outline.
        colour: Colour of the outlines.
    """

    stage: Stage
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
) -> Path:
    """Draw the fates of the patches of an image into a file.

    Args:
        image: Image (or crop, frame) that the patches tile.
        ledger: Ledger of the prompt.
        path: Output file; its suffix sets the format.
        title: First line, such as the method and its budget.
        question: Question of the prompt.
        answer: Answer of the model.
        target: Expected answer; decides whether the answer is right.
        number: Index of the image in the prompt.
        region: Mask of the patches that hold the answer, outlined in every panel; None if unknown.
    """
    shown = panels(image, fates(ledger, number))
    return save(figure(shown, header_lines(title, question, answer, target), region), Path(path))


def of_trace(source: Traced, number: int = 0) -> Figure:
    """Draw the fates of the patches in the picture of a traced sample.

    Raises:
        ValueError: If the trace does not have this picture.
    """
    trace = source.trace
    shown = panels(trace.picture(number), fates(trace.ledger, number))
    lines = header_lines(source.arm, source.question, "", "")
    colour = GREEN if source["score"] >= 1 else ORANGE
    lines.append((f"answer: {source.verdict}", colour))
    return figure(shown, lines, trace.region if number == 0 else None)


def panels(image: Image.Image, life: Fates, always: Collection[Stage] = ()) -> list[Panel]:
    """Panels of the picture, of each stage that changed the tokens, and of the KV cache.

    Args:
        image: Image (or crop, frame) that the patches tile.
        life: Fates of the patches.
        always: Stages that get a panel also where they changed nothing.
    """
    picture = np.asarray(image.convert("RGB"), dtype=float) / 255
    patches = life.grid[0] * life.grid[1]
    out = [Panel("picture", f"picture\n{patches} patches", picture)]
    if life.merged or not life.arrived.all() or "encoder" in always:
        merged = [mask_of(group, life.grid) for group in life.merged]
        mixed = averaged(picture, merged)
        out.append(
            Panel(
                "encoder",
                f"encoder: {patches} → {life.tokens} tokens\n{_encoder(life)}",
                shade(mixed, ~life.arrived, GONE, 0.85),
                merged,
                BLUE,
            )
        )
    if life.key.any() or "key" in always:
        others = shade(picture, ~life.key, GONE, 0.72)
        title = f"key tokens\n{int(life.key.sum())} patches, never dropped"
        out.append(Panel("key", title, others, [life.key], GREEN))
    for drop in life.drops:
        gone = shade(picture, ~drop.alive & ~drop.dropped, GONE, 0.85)
        counts = f"{drop.before} − {drop.before - drop.left} = {drop.left} tokens"
        lost = shade(gone, drop.dropped, VERMILION, 0.62)
        out.append(Panel("drop", f"{layers_of(drop)}\n{counts}", lost))
    cached = blend(picture, GONE, 0.85 * (1 - life.resident))
    title = f"KV cache while decoding\n{life.resident_tokens:.4g} tokens per layer"
    out.append(Panel("cache", title, cached))
    return out


def layers_of(drop: Drop) -> str:
    """Layers of a drop in words."""
    if drop.last != drop.first:
        return f"after layers {drop.first} to {drop.last}"
    return f"after layer {drop.first}" if drop.first >= 0 else "before layer 0"


@styled
def figure(
    shown: Sequence[Panel], lines: Sequence[tuple[str, str]], region: Mask | None = None
) -> Figure:
    """Arrange the panels below header lines of (text, colour)."""
    columns = 3 if len(shown) in (5, 6, 9) else min(len(shown), COLUMNS)
    rows = -(-len(shown) // columns)
    panel = min(DOUBLE / columns, WIDEST)
    height, width = shown[0].picture.shape[:2]
    tall = (panel - 2 * EDGE) * min(max(height / width, 0.4), 2.5)
    wide = columns * panel
    lines = [(textwrap.fill(text, int(wide * LETTERS)), colour) for text, colour in lines]
    head = LINE * sum(text.count("\n") + 1 for text, _ in lines) + 0.08
    size = (wide, rows * (tall + TITLE) + head + FOOT)
    canvas = sheet(*size, layout=None)
    for index, item in enumerate(shown):
        row, column = divmod(index, columns)
        top = head + row * (tall + TITLE) + TITLE
        left, bottom = column * panel + EDGE, size[1] - top - tall
        across = panel - 2 * EDGE
        ax = canvas.add_axes((left / wide, bottom / size[1], across / wide, tall / size[1]))
        framed(ax, item, region)
        ax.set_title(item.title, size=7, linespacing=1.15)
    write_lines(canvas, lines)
    marks = legend(shown, region is not None and bool(region.any()))
    canvas.legend(
        handles=marks, loc="lower center", ncols=5, fontsize=SMALL, borderaxespad=0.2,
        handlelength=1.4, columnspacing=1.2,
    )  # fmt: skip
    return canvas


def write_lines(canvas: Figure, lines: Sequence[tuple[str, str]]) -> None:
    """Write header lines of (text, colour) at the top of a figure, the first one in bold."""
    wide, tall = canvas.get_size_inches()
    y = 1 - 0.05 / tall
    for number, (text, colour) in enumerate(lines):
        weight = "normal" if number else "bold"
        canvas.text(EDGE / wide, y, text, va="top", size=7.5, weight=weight, color=colour)
        y -= LINE * (text.count("\n") + 1) / tall


def framed(
    ax: Axes, panel: Panel, region: Mask | None, light: float = 1.8, dark: float = 0.9
) -> None:
    """Draw a panel; outlines are dark lines over light ones, with these widths in points."""
    height, width = panel.picture.shape[:2]
    ax.imshow(panel.picture, interpolation="nearest", extent=(0, width, height, 0))
    for masks, colour in (
        ([] if region is None else [region], BLACK),
        (panel.outlines, panel.colour),
    ):
        edges = [
            edge * (width / mask.shape[1], height / mask.shape[0])
            for mask in masks
            for edge in outline(mask)
        ]
        ax.add_collection(LineCollection(edges, colors="white", linewidths=light))
        ax.add_collection(LineCollection(edges, colors=colour, linewidths=dark))
    ax.spines[:].set_visible(False)
    ax.set(xticks=[], yticks=[], xlim=(0, width), ylim=(height, 0))


def legend(shown: Sequence[Panel], region: bool) -> list[Patch]:
    """Legend entries for the lines and colours of the panels."""
    stages = {panel.stage for panel in shown if panel.stage != "encoder" or panel.outlines}
    stages |= {"region"} if region else set()
    stages |= {"gone"} if len(shown) > 2 else set()
    return [mark for name, mark in LEGEND.items() if name in stages]


def header_lines(title: str, question: str, answer: str, target: str) -> list[tuple[str, str]]:
    """Header lines of the figure, as (text, colour)."""
    lines = [(text, BLACK) for text in (title, question) if text]
    if answer or target:
        right = answer.strip().lower() == target.strip().lower()
        line = f"answer: “{answer}”"
        if target:
            line += ", right" if right else f", expected “{target}”"
        colour = BLACK if not target else GREEN if right else ORANGE
        lines.append((line, colour))
    return lines or [("", BLACK)]


def _encoder(life: Fates) -> str:
    dropped = int((~life.arrived).sum())
    parts = []
    if life.merged:
        sizes = {len(group) for group in life.merged}
        patches = f"{sizes.pop()} patches" if len(sizes) == 1 else "several patches"
        parts.append(f"{len(life.merged)} tokens from {patches} each")
    if dropped:
        parts.append(f"{dropped} patches dropped")
    return ", ".join(parts)
