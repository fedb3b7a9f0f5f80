"""Film strip of a video: what is kept of each frame, stage by stage.

One column per frame in the order of time. One row per stage: the frames, the encoder, key tokens,
each drop of the prefill, and the KV cache. Below each picture stands the number of tokens left of
its frame. Slots that show no patch, such as a frame's [CLS], are not in the pictures and not
counted. Reads only a ledger and pictures. Knows nothing about models.
"""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from analysis.figures.overlays import (
    EDGE,
    LETTERS,
    LINE,
    Panel,
    Stage,
    framed,
    header_lines,
    layers_of,
    legend,
    panels,
    write_lines,
)
from analysis.figures.style import BLACK, DOUBLE, GREEN, GREY, ORANGE, SMALL, save, sheet, styled
from analysis.figures.traced import Traced
from analysis.records.fates import Fates, joint_fates
from analysis.records.frames import frame_names, frames_of_videos
from mustdrop.ledger import TokenLedger

MOST_FRAMES, MOST_DROPS = 12, 4
WIDEST, NARROWEST = 1.1, 4.4  # inches: of a frame, of the figure
LABELS, NUMBERS, NAMES, FOOT, GAP = 1.08, 0.15, 0.16, 0.24, 0.02  # inches
PLAIN, SIDE = (143, 163, 179), 96  # colour and pixels of a frame without picture


@dataclass(frozen=True, eq=False)
class FilmRow:
    """Row of a film strip.

    Attributes:
        label: Stage, with the number of tokens of the whole video.
        pictures: Picture of each frame.
        numbers: Number of tokens (of key patches in the row of key tokens) of each frame.
    """

    label: str
    pictures: Sequence[Panel]
    numbers: Sequence[float]


def draw(
    ledger: TokenLedger,
    pictures: Sequence[Image.Image],
    path: Path | str,
    *,
    title: str = "",
    question: str = "",
    answer: str = "",
    target: str = "",
    number: int = 0,
    shown: int | None = None,
) -> Path:
    """Draw a film strip into a file.

    Args:
        ledger: Ledger of the prompt.
        pictures: Pictures of all encoded images of the prompt; empty: frames are plain.
        path: Output file; its suffix sets the format.
        title: First line, such as the method and its budget.
        question: Question of the prompt.
        answer: Answer of the model.
        target: Expected answer; decides whether the answer is right.
        number: Index of the video in the prompt.
        shown: See :func:`figure`.

    Raises:
        ValueError: If the prompt has no such video.
    """
    lines = header_lines(title, question, answer, target)
    return save(figure(ledger, pictures, lines, number, shown), Path(path))


def of_trace(source: Traced, number: int = 0) -> Figure:
    """Draw the film strip of a traced sample.

    Args:
        source: Traced sample.
        number: Index of the video in the prompt.

    Raises:
        ValueError: If the prompt has no such video.
    """
    trace = source.trace
    colour = GREEN if source["score"] >= 1 else ORANGE
    lines = [
        (source.arm, BLACK), (source.question, BLACK), (f"answer: {source.verdict}", colour)
    ]  # fmt: skip
    pictures = [trace.picture(index) for index in range(len(trace.pictures))]
    shown = source.cell["config"]["model"].get("frames")
    return figure(trace.ledger, pictures, lines, number, shown)


@styled
def figure(
    ledger: TokenLedger,
    pictures: Sequence[Image.Image],
    lines: Sequence[tuple[str, str]],
    number: int = 0,
    shown: int | None = None,
) -> Figure:
    """Draw the film strip of a video below header lines of (text, colour).

    Args:
        ledger: Ledger of the prompt.
        pictures: Pictures of all encoded images of the prompt; empty: frames are plain.
        lines: Header lines.
        number: Index of the video in the prompt.
        shown: Number of frames of the file that the model was given, see
            :func:`analysis.records.frames.frame_names`.

    Raises:
        ValueError: If the prompt has no such video.
    """
    videos = frames_of_videos(ledger)
    if not 0 <= number < len(videos):
        raise ValueError(f"video must be in [0, {len(videos)}), got {number}")
    video = videos[number]
    lives = joint_fates(ledger, video, MOST_DROPS)
    chosen = np.linspace(0, len(video) - 1, min(len(video), MOST_FRAMES)).round().astype(int)
    images = [pictures[video[index]] if pictures else _plain(lives[index]) for index in chosen]
    rows = film_rows(images, lives, chosen.tolist())
    names = [frame_names(len(video), shown)[index] for index in chosen]
    if len(chosen) < len(video):
        note = f"{len(chosen)} of {len(video)} frames are shown; the numbers on the left are of all"
        lines = [*lines, (note, GREY)]
    return _arranged(rows, names, lines)


def film_rows(
    images: Sequence[Image.Image], lives: Sequence[Fates], chosen: Sequence[int]
) -> list[FilmRow]:
    """Rows of a film strip, without stages that changed nothing in any frame.

    Args:
        images: Pictures of the chosen frames.
        lives: Fates of the patches of all frames, which have the same drops.
        chosen: Indices of the frames in the result.
    """
    always: list[Stage] = []
    if any(life.merged or not life.arrived.all() for life in lives):
        always.append("encoder")
    if any(_keys(lives)):
        always.append("key")
    strips = [
        panels(image, lives[index], always) for image, index in zip(images, chosen, strict=True)
    ]
    patches = [life.grid[0] * life.grid[1] for life in lives]
    tokens = [life.tokens for life in lives]
    texts: list[tuple[str, Sequence[float]]] = [(f"frames\n{sum(patches)} patches", patches)]
    if "encoder" in always:
        texts.append((f"encoder\n{sum(tokens)} tokens", tokens))
    if "key" in always:
        texts.append((f"key tokens\n{sum(_keys(lives))} patches", _keys(lives)))
    for index, drop in enumerate(lives[0].drops):
        left = [life.drops[index].left for life in lives]
        before = sum(life.drops[index].before for life in lives)
        texts.append((f"{layers_of(drop)}\n{sum(left)} of {before} tokens", left))
    cached = [life.resident_tokens for life in lives]
    texts.append((f"KV cache, per layer\n{sum(cached):.4g} tokens", cached))
    return [
        FilmRow(label, strip, [numbers[index] for index in chosen])
        for (label, numbers), strip in zip(texts, zip(*strips, strict=True), strict=True)
    ]


def _keys(lives: Sequence[Fates]) -> list[int]:
    """Number of patches of each frame that key tokens carry."""
    return [int(life.key.sum()) for life in lives]


def _plain(life: Fates) -> Image.Image:
    """Frame in one colour."""
    rows, columns = life.grid
    return Image.new("RGB", (SIDE, round(SIDE * rows / columns)), PLAIN)


def _arranged(
    rows: Sequence[FilmRow], names: Sequence[str], lines: Sequence[tuple[str, str]]
) -> Figure:
    """Arrange the rows below the header lines, with the name of each frame above its column."""
    wide = min((DOUBLE - LABELS) / len(names), WIDEST)
    across = max(LABELS + len(names) * wide, NARROWEST)
    height, width = rows[0].pictures[0].picture.shape[:2]
    tall = (wide - 2 * GAP) * min(max(height / width, 0.4), 2.5)
    lines = [(textwrap.fill(text, int(across * LETTERS)), colour) for text, colour in lines]
    head = LINE * sum(text.count("\n") + 1 for text, _ in lines) + 0.08
    size = head + NAMES + len(rows) * (tall + NUMBERS) + FOOT
    canvas = sheet(across, size, layout=None)
    canvas.text(EDGE / across, 1 - (head + NAMES - GAP) / size, "frame", va="bottom", size=7)
    for row_index, row in enumerate(rows):
        top = head + NAMES + row_index * (tall + NUMBERS)
        middle = 1 - (top + tall / 2) / size
        canvas.text(EDGE / across, middle, row.label, va="center", size=7, linespacing=1.2)
        for column, (panel, number) in enumerate(zip(row.pictures, row.numbers, strict=True)):
            left = LABELS + column * wide + GAP
            box = left, size - top - tall, wide - 2 * GAP, tall
            ax = canvas.add_axes(tuple(np.divide(box, (across, size, across, size))))
            framed(ax, panel, None, 0.9, 0.45)
            centre = (LABELS + (column + 0.5) * wide) / across
            canvas.text(
                centre, 1 - (top + tall + GAP) / size, f"{number:.4g}", ha="center", va="top",
                size=SMALL, color=GREY,
            )  # fmt: skip
            if not row_index:
                canvas.text(
                    centre, 1 - (top - GAP) / size, names[column], ha="center", va="bottom", size=7
                )
    write_lines(canvas, lines)
    typical = [max(row.pictures, key=lambda panel: len(panel.outlines)) for row in rows]
    canvas.legend(
        handles=legend(typical, region=False), loc="lower center", ncols=5, fontsize=SMALL,
        borderaxespad=0.2, handlelength=1.4, columnspacing=1.2,
    )  # fmt: skip
    return canvas
