"""A sweep: cells that are done are left alone, the others launched, all of them accounted for.

What became of a cell is read from its folder, whatever a launcher or a scheduler says of it.
"""

import os
import sys
from collections.abc import Callable, Mapping, Sequence

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig
from rich.console import Console
from rich.markup import escape

from experiments.cli.errors import BAD_INPUT, KNOWN, message
from experiments.sweeps.cells import Overrides, SweepCell, distinct
from experiments.sweeps.ready import UNREADY, unready
from experiments.tracking.follow import catch_up
from mustdrop.provenance.fingerprint import run_fingerprint
from mustdrop.runs.folder import read_record
from mustdrop.runs.status import SETTLED

WIDTH = 200  # of a table that goes to a file
# Of this process's sweep: how many cells it launched, and what its exit code tells.
launched = 0
failures: list[str] = []


def sweep(
    asked: Sequence[Overrides],
    compose: Callable[[Overrides], DictConfig],
    launcher: Launcher,
    if_unready: str = UNREADY[0],
) -> list[JobReturn]:
    """Launch what is unfinished, then say what is done, failed, and elsewhere, and show a table.

    All runs are checked before the first one starts.

    Args:
        asked: Overrides of each run.
        compose: Gives the config of overrides.
        launcher: Starts the runs.
        if_unready: What to do where some cannot start: ``refuse`` all of them, ``skip`` those, or
            ``launch`` them all the same, as where only the machines of a cluster have the data.

    Returns:
        What the launcher brought back.

    Raises:
        SystemExit: If some cannot start, and that is refused.
    """
    # standard error: a launcher's own output, and lmms-eval's, may fill the other one
    console = Console(stderr=True, highlight=False)
    cells = distinct([SweepCell.of(overrides, compose) for overrides in asked])
    # what a scheduler runs elsewhere has other devices than this machine
    here = not any(name in type(launcher).__module__ for name in ("slurm", "submitit"))
    work = [cell for cell in cells if cell.config is None or cell.unfinished]
    unfit = require_start(work, console, if_unready, here)
    work = [cell for cell in work if cell not in unfit]
    before = _done_before([cell for cell in cells if cell not in unfit], work)
    console.print(f"{len(cells)} cells: {before}, {len(work)} to run", soft_wrap=True)
    for cell in cells:
        if cell.config and cell.folder and cell not in work and cell not in unfit:
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
        account(cells, console, unfit, work)
        tabulate(cells, console)


def require_start(
    cells: Sequence[SweepCell], console: Console, if_unready: str, here: bool = True
) -> Mapping[SweepCell, str]:
    """Say which runs cannot start, and why.

    Args:
        cells: Runs with work left, and those that could not be composed.
        console: Where it is said.
        if_unready: One of :data:`~experiments.sweeps.ready.UNREADY`.
        here: Whether they will run on this machine.

    Returns:
        Those to leave out, with the reason of each.

    Raises:
        ValueError: If there is no such choice.
        SystemExit: If some cannot start, and that is refused.
    """
    if if_unready not in UNREADY:
        raise ValueError(f"unready must be one of {', '.join(UNREADY)}, got {if_unready!r}")
    unfit = unready(cells, here)
    for cell, reason in unfit.items():
        console.print(f"[red]error[/]: {escape(cell.name)}: {escape(reason)}", soft_wrap=True)
    if unfit and if_unready == "refuse":
        console.print(
            f"{len(unfit)} of {len(cells)} runs cannot start, so none was started; "
            "hydra.sweeper.unready=skip (sweep.py submit: --unready skip) runs the others",
            soft_wrap=True,
        )
        raise SystemExit(BAD_INPUT)
    composed = if_unready == "launch"  # what has no config cannot even be tried
    return {cell: why for cell, why in unfit.items() if cell.config is None or not composed}


def account(
    cells: Sequence[SweepCell],
    console: Console,
    left_out: Mapping[SweepCell, str],
    tried: Sequence[SweepCell],
) -> None:
    """Say where unfinished cells stand; remember why they failed, for the exit code.

    Args:
        cells: All runs.
        console: Where it is said.
        left_out: Those that were not tried, with the reason of each.
        tried: Those that were launched; one that left torn files is not done, whatever it says.
    """
    for cell in cells:
        now = cell.status
        torn = cell.torn if cell in tried else []
        if now.state in SETTLED and not torn and cell not in left_out:
            continue
        if now.state == "running":
            console.print(f"[yellow]elsewhere[/]: {escape(cell.name)}: running on {now.where}")
            continue
        why = left_out.get(cell) or now.error or (str(torn[0]) if torn else "")
        why = why or f"{now.state} after {now.n} samples; the same command goes on"
        failures.append(f"{cell.name}: {why}")
        console.print(f"[red]{now.state}[/]: {escape(failures[-1])}", soft_wrap=True)


def tabulate(cells: Sequence[SweepCell], console: Console) -> None:
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


def _done_before(cells: Sequence[SweepCell], work: Sequence[SweepCell]) -> str:
    """How many are done, and how many of these by other code than today's."""
    left = {cell.folder for cell in work}
    before = [
        (cell.folder, cell.config)
        for cell in cells
        if cell.folder and cell.config and cell.folder not in left
    ]
    other = sum(
        run_fingerprint(config).differs((read_record(folder) or {}).get("fingerprint"))
        for folder, config in before
    )
    told = f" ({other} by other code, weights or rows; force=true measures anew)" if other else ""
    return f"{len(before)} done before{told}"
