"""Launch the unfinished cells of a sweep, and report the state of all its cells.

The state of a cell is read from its folder, never from a launcher or a scheduler.
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
from experiments.sweeps.cells import Overrides, SweepCell, cells_of
from experiments.sweeps.ready import UNREADY, unready
from experiments.tracking.follow import catch_up
from mustdrop.provenance.fingerprint import run_fingerprint
from mustdrop.runs.folder import read_record
from mustdrop.runs.status import SETTLED

WIDTH = 200  # of a table that goes to a file
# number of cells that this process launched, and the failures that decide its exit code
launched = 0
failures: list[str] = []


def sweep(
    runs: Sequence[Overrides],
    compose: Callable[[Sequence[str]], DictConfig],
    launcher: Launcher,
    if_unready: str = UNREADY[0],
) -> list[JobReturn]:
    """Launch the unfinished runs, then report failed and running ones and show a table.

    All runs are checked before the first one starts.

    Args:
        runs: Overrides of each run.
        compose: Composes the config of overrides.
        launcher: Launcher that starts the runs.
        if_unready: Action when some runs cannot start: ``refuse`` all runs, ``skip`` these, or
            ``launch`` them anyway, for instance when only the cluster's machines have the data.

    Returns:
        Results of the launcher.

    Raises:
        SystemExit: If some runs cannot start and ``if_unready`` is ``refuse``.
    """
    # standard error: the launcher and lmms-eval may fill standard output
    console = Console(stderr=True, highlight=False)
    cells = cells_of(runs, compose)
    # a scheduler's machines have other devices than this one
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
            except KNOWN as error:  # a missing package or wrong field concerns all cells alike
                failures.append(message(error))
                console.print(f"[red]error[/]: {escape(message(error))}", soft_wrap=True)
                break
    global launched
    launched = len(work)
    # At ctrl-C joblib kills its workers. Python's resource tracker then frees their semaphores, and
    # would print a warning about them.
    os.environ.setdefault("PYTHONWARNINGS", "ignore:resource_tracker:UserWarning")
    try:
        return list(launcher.launch([list(cell.overrides) for cell in work], 0)) if work else []
    finally:
        if not isinstance(sys.exception(), KeyboardInterrupt):
            account(cells, console, unfit, work)
            tabulate(cells, console)


def require_start(
    cells: Sequence[SweepCell], console: Console, if_unready: str, here: bool = True
) -> Mapping[SweepCell, str]:
    """Report which runs cannot start, and why.

    Args:
        cells: Unfinished runs, and runs that could not be composed.
        console: Console for the report.
        if_unready: One of :data:`~experiments.sweeps.ready.UNREADY`.
        here: Whether the runs will use this machine.

    Returns:
        Runs to leave out, with the reason of each.

    Raises:
        ValueError: If ``if_unready`` is none of the choices.
        SystemExit: If some runs cannot start and ``if_unready`` is ``refuse``.
    """
    if if_unready not in UNREADY:
        raise ValueError(f"unready must be one of {', '.join(UNREADY)}, got {if_unready!r}")
    unfit = unready(cells, here)
    for cell, reason in unfit.items():
        console.print(f"[red]error[/]: {escape(cell.name)}: {escape(reason)}", soft_wrap=True)
    if unfit and if_unready == "refuse":
        console.print(
            f"{len(unfit)} of {len(cells)} runs cannot start, so none was started; "
            "hydra.sweeper.unready=skip (mustdrop sweep submit: --unready skip) runs the others",
            soft_wrap=True,
        )
        raise SystemExit(BAD_INPUT)
    if if_unready == "launch":  # runs without a config cannot be launched at all
        return {cell: reason for cell, reason in unfit.items() if cell.config is None}
    return unfit


def account(
    cells: Sequence[SweepCell],
    console: Console,
    left_out: Mapping[SweepCell, str],
    tried: Sequence[SweepCell],
) -> None:
    """Report the state of unfinished cells; add failures to the list that the exit code needs.

    Args:
        cells: All runs.
        console: Console for the report.
        left_out: Runs that were not launched, with the reason of each.
        tried: Runs that were launched; one with torn files is not done, whatever its status.
    """
    for cell in cells:
        now = cell.status
        torn = cell.torn if cell in tried else []
        if now.state in SETTLED and not torn and cell not in left_out:
            continue
        if now.state == "running":
            console.print(f"[yellow]elsewhere[/]: {escape(cell.name)}: running on {now.where}")
            continue
        reason = left_out.get(cell) or now.error or (str(torn[0]) if torn else "")
        reason = reason or f"{now.state} after {now.n} samples; the same command resumes"
        failures.append(f"{cell.name}: {reason}")
        console.print(f"[red]{now.state}[/]: {escape(failures[-1])}", soft_wrap=True)


def tabulate(cells: Sequence[SweepCell], console: Console) -> None:
    """Print one table of the finished cells on standard output; of several ranks, only rank 0."""
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
    except (ValueError, OSError) as error:  # a torn record must not make the sweep fail
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        console.print(f"[red]no table[/]: {escape(reason)}", soft_wrap=True)


def _done_before(cells: Sequence[SweepCell], work: Sequence[SweepCell]) -> str:
    """Describe how many cells are done, and how many of these by other code."""
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
    note = f" ({other} by other code, weights or rows; force=true measures again)" if other else ""
    return f"{len(before)} done before{note}"
