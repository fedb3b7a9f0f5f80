"""A table of :mod:`analysis.tables` as people read it: for the terminal, Markdown, a spreadsheet.

Knows nothing about runs and numbers: what the cells say is :mod:`analysis.tables.sheets`.
"""

from pathlib import Path

import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from analysis.tables.notes import OFF
from analysis.tables.sheets import NAMES, Sheet, sheet


def render(frame: pd.DataFrame) -> Table:
    """A table for the terminal, of either frame of :mod:`analysis.tables`."""
    return _table(sheet(frame))


def show(frame: pd.DataFrame, console: Console | None = None) -> None:
    """Print a frame; in a narrow terminal as two tables, scores and costs, or intervals below."""
    console = console or Console()
    whole = sheet(frame)
    split = "setup" in frame and not _fits(_table(whole), console)
    for part in whole.halves() if split else (whole,):
        table = _table(part)
        console.print(table if _fits(table, console) else _table(part, stacked=True))
        for note in part.notes:
            console.print(note, style="dim", markup=False, highlight=False)


def _fits(table: Table, console: Console) -> bool:
    boundless = console.options.update(max_width=10_000)
    return console.measure(table, options=boundless).maximum <= console.width


def _table(made: Sheet, stacked: bool = False) -> Table:
    padding = (0, 0) if stacked else (0, 1, 0, 0)
    table = Table(title=made.title or None, box=box.SIMPLE_HEAD, padding=padding, pad_edge=False)
    words = sum(head in NAMES for head in made.heads)
    for place, head in enumerate(made.heads):
        justify = "left" if place < words else "right"
        for start in (" [", " (", " average", " cache", " sample"):
            head = head.replace(start, "\n" + start[1:])
        table.add_column(Text(head), justify=justify, overflow="fold")
    for number, row in enumerate(made.rows):
        if number in made.breaks:
            table.add_section()
        cells = (cell.replace(" [", "\n[") if stacked else cell for cell in row)
        table.add_row(*(Text(cell, style="red" if OFF in cell else "") for cell in cells))
    return table


def to_markdown(frame: pd.DataFrame) -> str:
    """The same as a Markdown table, with its notes as a list below."""
    made = sheet(frame)
    words = sum(head in NAMES for head in made.heads)
    lines = [
        "| " + " | ".join(made.heads) + " |",
        "|"
        + "|".join(" --- " if place < words else " ---: " for place in range(len(made.heads)))
        + "|",
        *("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in made.rows),
    ]
    head = [f"**{made.title}**", ""] if made.title else []
    return "\n".join([*head, *lines, "", *(f"- {note}" for note in made.notes)]) + "\n"


def to_csv(frame: pd.DataFrame, path: Path | None = None) -> str:
    """All columns at full precision; written to a file too where a path is given."""
    text = frame.to_csv(index=False, lineterminator="\n")
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return text
