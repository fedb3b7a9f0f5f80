"""Plan, watch, tabulate, retry or submit the cells of an experiment, by its run folders.

mustdrop sweep plan table4            # cells, their states and the time left
mustdrop sweep status table4          # a live table; --once prints it once
mustdrop sweep table table4           # one table of the finished cells
mustdrop sweep complete table4        # find missing thresholds, run all cells here, write tables
mustdrop sweep retry table4           # run failed, stopped and stale cells again, here
mustdrop sweep submit table4          # unfinished cells as one SLURM array
mustdrop sweep chain "run -m experiment=table2" "judge outputs/table2 --budget 9000"
                                      # SLURM jobs, each after the success of the one before it
mustdrop run -m experiment=table4     # run all, here or by launcher=joblib, slurm

The overrides after the name are those of mustdrop run: model=pocket budget=t192,t64. A sweep
without a preset has the name none: plan none method=fastv,random. status also takes a folder.
"""

import mustdrop.openmp  # noqa: F401  # isort: skip  # before torch loads
import argparse
import shlex
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from experiments.cli.errors import BAD_INPUT, KNOWN, STOPPED, leave, message
from experiments.sweeps.cells import SweepCell, cells_under, plan
from experiments.sweeps.complete import calibrations, complete
from experiments.sweeps.forecast import Forecast, spoken
from experiments.sweeps.launch import require_start, tabulate
from experiments.sweeps.ready import UNREADY
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


def retry(cells: Sequence[SweepCell], console: Console) -> int:
    """Run the failed, stopped and stale cells again, in this process.

    Returns:
        1 if one of them is still not done, else 0.
    """
    again = [c for c in cells if c.config and c.status.state in ("failed", "stopped", "stale")]
    console.print(f"running {len(again)} of {len(cells)} cells again")
    return run_here(again, console)


def run_here(cells: Sequence[SweepCell], console: Console) -> int:
    """Run cells one after the other in this process.

    Returns:
        1 if one of them is not done, else 0.
    """
    from experiments.run import attempt
    from mustdrop.presets.compose import composed

    codes = []
    for number, cell in enumerate(cells, 1):
        console.print(f"[bold]{number}/{len(cells)}[/] {escape(cell.name)}", highlight=False)
        codes.append(attempt(composed(*cell.overrides), cell.overrides))
    return int(any(codes))


def submit(
    cells: Sequence[SweepCell], site: Path | None, dry_run: bool, console: Console, if_unready: str
) -> int:
    """Check all unfinished cells, then submit those that are not running as one SLURM array."""
    from experiments.cluster.job import submit as to_slurm
    from experiments.cluster.site_file import load_site

    work = [c for c in cells if c.config is None or c.unfinished]
    unfit = require_start(work, console, if_unready, here=False)
    work = [cell for cell in work if cell not in unfit and cell.status.state != "running"]
    if not work:
        console.print("nothing to do: every cell is done or running")
        return 0
    text = to_slurm(work, load_site(site), dry_run)
    text = text if dry_run else f"{len(work)} of {len(cells)} cells are submitted as job {text}"
    console.print(text, soft_wrap=True, markup=False, highlight=False)
    return 0


def submit_commands(
    commands: Sequence[str], site: Path | None, dry_run: bool, console: Console
) -> int:
    """Submit commands of mustdrop as SLURM jobs, each after the success of the one before it."""
    from experiments.cluster.job import submit_chain
    from experiments.cluster.site_file import load_site

    jobs = submit_chain([shlex.split(command) for command in commands], load_site(site), dry_run)
    if not dry_run:
        jobs = [f"job {job}: mustdrop {text}" for job, text in zip(jobs, commands, strict=True)]
    console.print("\n".join(jobs), soft_wrap=True, markup=False, highlight=False)
    return 0


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


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one of the six commands and return its exit code."""
    parser = argparse.ArgumentParser(
        prog="mustdrop sweep", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("plan", "status", "table", "complete", "retry", "submit"):
        command = commands.add_parser(name)
        command.add_argument("experiment", help="a preset of conf/experiment/")
        command.add_argument("overrides", nargs="*", help="name=value[,value], as for run.py")
        if name == "status":
            command.add_argument("--once", action="store_true", help="print the table once")
        if name == "complete":
            command.add_argument("--dry-run", action="store_true", help="print the steps only")
        if name == "submit":
            command.add_argument("--site", type=Path, help="site file (slurm/README.md)")
            command.add_argument(
                "--unready",
                choices=UNREADY,
                default=UNREADY[0],
                help="what to do if some cells cannot start",
            )
            command.add_argument("--dry-run", action="store_true", help="print the script only")
    chain = commands.add_parser("chain")
    chain.add_argument("commands", nargs="+", help="commands of mustdrop, one text each")
    chain.add_argument("--site", type=Path, help="site file (slurm/README.md)")
    chain.add_argument("--dry-run", action="store_true", help="print the script only")
    options = parser.parse_args(arguments)
    console = Console(width=None if sys.stdout.isatty() else 140)
    try:
        if options.command == "chain":
            return submit_commands(options.commands, options.site, options.dry_run, console)
        folder = Path(options.experiment)
        is_folder = options.command == "status" and folder.is_dir()
        cells = cells_under(folder) if is_folder else plan(options.experiment, options.overrides)
        reported = options.command in ("submit", "complete")  # by these commands themselves
        for cell in () if reported else cells:
            if cell.config is None and not cell.calibration:
                console.print(f"[red]error[/]: {escape(cell.name)}: {escape(cell.error)}")
        match options.command:
            case "plan":
                return show_plan(cells, console)
            case "status":
                return show_status(cells, console, options.once)
            case "table":
                tabulate(cells, console)
                return 0
            case "complete":
                return complete(
                    lambda: plan(options.experiment, options.overrides),
                    lambda ready: run_here(ready, console),
                    console, options.dry_run,
                )  # fmt: skip
            case "retry":
                return retry(cells, console)
            case _:
                return submit(cells, options.site, options.dry_run, console, options.unready)
    except KNOWN as error:
        print(f"error: {message(error)}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        if options.command in ("retry", "complete"):
            raise
        return STOPPED  # nothing was running here


if __name__ == "__main__":
    leave(main)
