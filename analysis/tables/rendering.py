"""A table of :mod:`analysis.tables` as people read it: for the terminal, Markdown, a spreadsheet.

Knows nothing about runs and numbers: what the cells say is :mod:`analysis.tables.sheets`.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from analysis.tables.notes import OFF
from analysis.tables.sheets import COMMAND, NAMES, Sheet, sheet


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
        _print_notes(part, console)


def show_sheet(made: Sheet, console: Console) -> None:
    """Print a sheet; one that is too wide as several, each with the names of its rows."""
    for part in _chunks(made, console):
        # above the table, not in it: a title longer than a narrow table would be folded
        console.print(f"\n{part.title}", style="bold", markup=False, highlight=False)
        if part.rows:
            console.print(_table(replace(part, title="")))
    _print_notes(made, console)


def _print_notes(made: Sheet, console: Console) -> None:
    for note in made.notes:
        console.print(note, style="dim", markup=False, highlight=False, soft_wrap=True)


def _chunks(made: Sheet, console: Console) -> Iterator[Sheet]:
    """The sheet in as many as fit; what is published about a column stays beside it."""
    names = [place for place, head in enumerate(made.heads) if head in NAMES]
    blocks: list[list[int]] = []
    for place, head in enumerate(made.heads):
        if place in names:
            continue
        if blocks and head == f"{made.heads[blocks[-1][0]]}, published":
            blocks[-1].append(place)
        else:
            blocks.append([place])
    chosen, title = list(names), made.title
    for block in blocks:
        wider = made.part([*chosen, *block], title)
        if len(chosen) > len(names) and not _fits(_table(wider), console):
            yield made.part(chosen, title)
            chosen, title = list(names), f"{made.title} (more)"
        chosen += block
    yield made.part(chosen, title)


def _fits(table: Table, console: Console) -> bool:
    boundless = console.options.update(max_width=10_000)
    return console.measure(table, options=boundless).maximum <= console.width


def _table(made: Sheet, stacked: bool = False) -> Table:
    padding = (0, 0) if stacked else (0, 1, 0, 0)
    table = Table(title=made.title or None, box=box.SIMPLE_HEAD, padding=padding, pad_edge=False)
    for head in made.heads:
        justify = "left" if head in NAMES else "right"
        for start in (" [", " (", " average", " cache", " sample", " published"):
            head = head.replace(start, "\n" + start[1:])
        table.add_column(Text(head), justify=justify, overflow="fold")
    for number, row in enumerate(made.rows):
        if number in made.breaks:
            table.add_section()
        cells = (cell.replace(" [", "\n[") if stacked else cell for cell in row)
        table.add_row(*(Text(cell, style=_style(cell)) for cell in cells))
    return table


def _style(cell: str) -> str:
    return "red" if OFF in cell else "dim" if cell == "missing" else ""


def to_markdown(frame: pd.DataFrame) -> str:
    """The same as a Markdown table, with its notes as a list below."""
    return sheet_markdown(sheet(frame))


def sheet_markdown(made: Sheet) -> str:
    """A sheet as a Markdown table, with its notes as a list below; commands as code."""

    def plain(cell: str) -> str:
        return cell.replace("|", "\\|").replace("\n", "<br>")

    lines = [
        "| " + " | ".join(made.heads) + " |",
        "|" + "|".join(" --- " if head in NAMES else " ---: " for head in made.heads) + "|",
        *("| " + " | ".join(map(plain, row)) + " |" for row in made.rows),
    ]
    head = [f"**{made.title}**", ""] if made.title else []
    notes = (f"- `{note}`" if note.startswith(COMMAND) else f"- {note}" for note in made.notes)
    return "\n".join([*head, *lines, "", *notes]) + "\n"


def to_csv(frame: pd.DataFrame, path: Path | None = None) -> str:
    """All columns at full precision; written to a file too where a path is given."""
    text = frame.to_csv(index=False, lineterminator="\n")
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return text
