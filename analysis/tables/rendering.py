"""Render a table of :mod:`analysis.tables` for the terminal, as Markdown or as CSV.

Knows nothing about runs and numbers: :mod:`analysis.tables.sheets` makes the text of the cells.
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
    """Make a terminal table of a frame from :mod:`analysis.tables`."""
    return _table(sheet(frame))


def show(frame: pd.DataFrame, console: Console | None = None) -> None:
    """Print a frame; in a narrow terminal scores and costs are separate, or intervals go below."""
    console = console or Console()
    whole = sheet(frame)
    split = "setup" in frame and not _fits(_table(whole), console)
    for part in whole.halves() if split else (whole,):
        table = _table(part)
        console.print(table if _fits(table, console) else _table(part, stacked=True))
        _print_notes(part, console)


def show_sheet(table_sheet: Sheet, console: Console) -> None:
    """Print a sheet; a sheet that is too wide is split, and each part repeats the row names."""
    for part in _chunks(table_sheet, console):
        # The title is printed above the table, because a narrow table would wrap it.
        console.print(f"\n{part.title}", style="bold", markup=False, highlight=False)
        if part.rows:
            console.print(_table(replace(part, title="")))
    _print_notes(table_sheet, console)


def _print_notes(table_sheet: Sheet, console: Console) -> None:
    for note in table_sheet.notes:
        console.print(note, style="dim", markup=False, highlight=False, soft_wrap=True)


def _chunks(table_sheet: Sheet, console: Console) -> Iterator[Sheet]:
    """Split a sheet into parts that fit; a column and its published column stay together."""
    names = [index for index, head in enumerate(table_sheet.heads) if head in NAMES]
    blocks: list[list[int]] = []
    for index, head in enumerate(table_sheet.heads):
        if index in names:
            continue
        if blocks and head == f"{table_sheet.heads[blocks[-1][0]]}, published":
            blocks[-1].append(index)
        else:
            blocks.append([index])
    chosen, title = list(names), table_sheet.title
    for block in blocks:
        wider = table_sheet.part([*chosen, *block], title)
        if len(chosen) > len(names) and not _fits(_table(wider), console):
            yield table_sheet.part(chosen, title)
            chosen, title = list(names), f"{table_sheet.title} (more)"
        chosen += block
    yield table_sheet.part(chosen, title)


def _fits(table: Table, console: Console) -> bool:
    unlimited = console.options.update(max_width=10_000)
    return console.measure(table, options=unlimited).maximum <= console.width


def _table(table_sheet: Sheet, stacked: bool = False) -> Table:
    padding = (0, 0) if stacked else (0, 1, 0, 0)
    table = Table(
        title=table_sheet.title or None, box=box.SIMPLE_HEAD, padding=padding, pad_edge=False
    )
    for head in table_sheet.heads:
        justify = "left" if head in NAMES else "right"
        for start in (" [", " (", " average", " cache", " sample", " published"):
            head = head.replace(start, "\n" + start[1:])
        table.add_column(Text(head), justify=justify, overflow="fold")
    for number, row in enumerate(table_sheet.rows):
        if number in table_sheet.breaks:
            table.add_section()
        cells = (cell.replace(" [", "\n[") if stacked else cell for cell in row)
        table.add_row(*(Text(cell, style=_style(cell)) for cell in cells))
    return table


def _style(cell: str) -> str:
    return "red" if OFF in cell else "dim" if cell == "missing" else ""


def to_markdown(frame: pd.DataFrame) -> str:
    """Render a frame as a Markdown table, with its notes as a list below."""
    return sheet_markdown(sheet(frame))


def sheet_markdown(table_sheet: Sheet) -> str:
    """Render a sheet as a Markdown table, with its notes as a list below and commands as code."""

    def escaped(cell: str) -> str:
        return cell.replace("|", "\\|").replace("\n", "<br>")

    lines = [
        "| " + " | ".join(table_sheet.heads) + " |",
        "|" + "|".join(" --- " if head in NAMES else " ---: " for head in table_sheet.heads) + "|",
        *("| " + " | ".join(map(escaped, row)) + " |" for row in table_sheet.rows),
    ]
    head = [f"**{table_sheet.title}**", ""] if table_sheet.title else []
    notes = (
        f"- `{note}`" if note.startswith(COMMAND) else f"- {note}" for note in table_sheet.notes
    )
    return "\n".join([*head, *lines, "", *notes]) + "\n"


def to_csv(frame: pd.DataFrame, path: Path | None = None) -> str:
    """Render all columns at full precision as CSV, and write them to ``path`` if given."""
    text = frame.to_csv(index=False, lineterminator="\n")
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return text
