"""A sweep: cells that are done are left alone, the others launched, all of them accounted for.

What became of a cell is read from its folder, whatever a launcher or a scheduler says of it.
"""

import os
import sys
from collections.abc import Callable, Sequence

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig
from rich.console import Console
from rich.markup import escape

from experiments.messages import KNOWN, message
from experiments.sweeps.cells import Cell, Overrides, distinct
from experiments.tracking.follow import catch_up
from mustdrop.harness.fingerprint import Fingerprint
from mustdrop.harness.record import read_record
from mustdrop.harness.standing import SETTLED

WIDTH = 200  # of a table that goes to a file
# Of this process's sweep: how many cells it launched, and what its exit code tells.
launched = 0
failures: list[str] = []


def sweep(
    asked: Sequence[Overrides], compose: Callable[[Overrides], DictConfig], launcher: Launcher
) -> list[JobReturn]:
    """Launch what is unfinished, then say what is done, failed, and elsewhere, and show a table.

    Returns:
        What the launcher brought back.
    """
    # standard error: a launcher's own output, and lmms-eval's, may fill the other one
    console = Console(stderr=True, highlight=False)
    cells = distinct([Cell.of(overrides, compose) for overrides in asked])
    for cell in cells:
        if cell.config is None:
            console.print(
                f"[red]error[/]: {escape(cell.name)}: {escape(cell.error)}", soft_wrap=True
            )
    work = [cell for cell in cells if cell.config is not None and cell.unfinished]
    console.print(f"{len(cells)} cells: {_done_before(cells, work)}, {len(work)} to run")
    for cell in cells:
        if cell.config and cell.folder and cell not in work:
            try:
                catch_up(cell.config["tracker"], cell.folder)
            except KNOWN as error:  # no package, a wrong field: the cells to run will say it too
                failures.append(message(error))
                console.print(f"[red]error[/]: {escape(message(error))}", soft_wrap=True)
                break
    global launched
    launched = len(work)
    try:
        return list(launcher.launch([list(cell.overrides) for cell in work], 0)) if work else []
    finally:
        account(cells, console)
        tabulate(cells, console)


def account(cells: Sequence[Cell], console: Console) -> None:
    """Say where unfinished cells stand; remember why they failed, for the exit code."""
    for cell in cells:
        now = cell.standing
        if now.state in SETTLED:
            continue
        if now.state == "running":
            console.print(f"[yellow]elsewhere[/]: {escape(cell.name)}: running on {now.where}")
            continue
        why = now.error or f"{now.state} after {now.n} samples; the same command goes on"
        failures.append(f"{cell.name}: {why}")
        console.print(f"[red]{now.state}[/]: {escape(failures[-1])}", soft_wrap=True)


def tabulate(cells: Sequence[Cell], console: Console) -> None:
    """One table of those of these cells that are done, on standard output; one of several ranks."""
    if int(os.environ.get("RANK", 0)):
        return
    try:
        from analysis.records.left_out import in_words
        from analysis.tables import show, summary_of  # pandas: only where there is a table to make

        with in_words():
            frame = summary_of([cell.folder for cell in cells if cell.folder])
        if len(frame):
            show(frame, Console(width=None if sys.stdout.isatty() else WIDTH))
        else:
            console.print("no table: none of these cells is done")
    except (ValueError, OSError) as error:  # torn records: what ran must not be lost over a table
        told = f"{type(error).__name__}: {error}".splitlines()[0]
        console.print(f"[red]no table[/]: {escape(told)}", soft_wrap=True)


def _done_before(cells: Sequence[Cell], work: Sequence[Cell]) -> str:
    """How many are done, and how many of these by other code than today's."""
    left = {cell.folder for cell in work}
    before = [cell.folder for cell in cells if cell.folder and cell.folder not in left]
    mark = Fingerprint.now().id
    other = sum((read_record(folder) or {}).get("fingerprint") != mark for folder in before)
    told = f" ({other} by other code; force=true measures anew)" if other else ""
    return f"{len(before)} done before{told}"
