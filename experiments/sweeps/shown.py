"""Tables of a sweep on the terminal: its plan, and its live status. Starts nothing."""

import shlex
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from experiments.sweeps.calibrating import calibrations
from experiments.sweeps.cells import SweepCell
from experiments.sweeps.forecast import Forecast, spoken
from mustdrop.runs.status import SETTLED, RunStatus

COLOURS = {
    "done": "green", "floor": "green", "running": "cyan", "pending": "dim", "stale": "yellow",
    "stopped": "yellow", "needs calibration": "magenta", "unready": "red", "failed": "red",
}  # fmt: skip
WRONG = ("unready", "needs calibration", "failed")
EVERY = 2.0  # seconds between two updates of the live table


def show_plan(cells: Sequence[SweepCell], console: Console) -> int:
    """Print every cell with its samples, and the time that one process would need for the rest."""
    forecast = Forecast.of(Path(cells[0].config["output_root"]) if cells[0].config else Path())
    table = Table("cell", "state", "samples", "time left", box=None)
    total, unknown = 0.0, 0
    for cell in cells:
        now = cell.status
        left = 0.0 if now.state in SETTLED else forecast.left(cell, now)
        total, unknown = total + (left or 0.0), unknown + (left is None)
        table.add_row(cell.name, _state(now), _samples(now), spoken(left))
    console.print(table)
    states = Counter(cell.status.state for cell in cells)
    missing = sum(count for state, count in states.items() if state not in SETTLED)
    line = f"{len(cells)} cells, {missing} unfinished"
    if missing:
        line += f": {spoken(total)} on one process" if total else ": no record yet for a forecast"
        line += f", {unknown} cells of unknown length" if unknown and total else ""
    console.print(line)
    if commands := calibrations(cells):
        console.print(
            f"{states['needs calibration']} cells need thresholds first; mustdrop sweep complete "
            "finds them and runs all, or:"
        )
        for words in commands:
            console.print(f"  mustdrop {shlex.join(words)}", soft_wrap=True, markup=False)
    return 0


def show_status(cells: Sequence[SweepCell], console: Console, once: bool) -> int:
    """Show a live table of the cells until nothing is left to run, or ^C.

    Returns:
        1 if a cell failed or cannot start, else 0.
    """
    if once or not console.is_terminal:
        console.print(_status(cells))
    else:
        with Live(console=console, auto_refresh=False) as live:
            while True:
                live.update(_status(cells), refresh=True)
                if all(cell.status.state in (*SETTLED, *WRONG) for cell in cells):
                    break
                time.sleep(EVERY)
    return int(any(cell.status.state in WRONG for cell in cells))


def _status(cells: Sequence[SweepCell]) -> Group:
    table = Table("cell", "state", "samples", "a second", "time left", "where", box=None)
    statuses = [(cell, cell.status) for cell in cells]
    for cell, now in statuses:
        rate = "" if now.rate is None else f"{now.rate:.2f}"
        left = "" if now.left is None else spoken(now.left)
        table.add_row(cell.name, _state(now), _samples(now), rate, left, now.where)
    states = Counter(now.state for _, now in statuses)
    line = Text(" · ".join(f"{count} {state}" for state, count in states.most_common()))
    line.append(_totals([now for _, now in statuses]))
    errors = [
        Text(f"{cell.name}: {now.error.splitlines()[0]}", style="red")
        for cell, now in statuses
        if now.state in WRONG and now.error
    ]
    return Group(table, line, *errors)


def _totals(statuses: Sequence[RunStatus]) -> str:
    """Describe the samples of all cells, and the time left at the running cells' rate."""
    n, wanted = sum(now.n for now in statuses), [now.wanted for now in statuses]
    rate = sum(now.rate for now in statuses if now.rate is not None and now.state == "running")
    text = f" · {n} samples"
    if None in wanted:
        return text
    total = sum(count for count in wanted if count is not None)
    text += f" of {total}"
    return f"{text} · {rate:.1f} a second · {spoken((total - n) / rate)} left" if rate else text


def _state(now: RunStatus) -> str:
    return f"[{COLOURS[now.state]}]{now.state}[/]"


def _samples(now: RunStatus) -> str:
    return f"{now.n}/{'?' if now.wanted is None else now.wanted}"
