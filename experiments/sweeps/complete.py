"""Complete an experiment: find the thresholds that its cells lack, run all cells, write tables.

Every step is skipped where its result is there already, so the same command continues after a stop.
"""

import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from experiments.sweeps.cells import SweepCell
from experiments.sweeps.ready import unready

BUDGET = "budget"
VARIED = ("method", BUDGET)  # overrides of which one calibration takes several values


def calibrations(cells: Sequence[SweepCell]) -> list[list[str]]:
    """Commands that find all missing thresholds, each for as many budgets as possible.

    One command loads its model and its questions once.

    Returns:
        Words of each command, after ``mustdrop``.
    """
    groups: dict[tuple[str, ...], list[str]] = {}
    for cell in cells:
        if not cell.calibration:
            continue
        budgets = [word for word in cell.calibration if word.startswith(f"{BUDGET}=")]
        rest = tuple(word for word in cell.calibration if word not in budgets)
        known = groups.setdefault(rest, [])
        known += [value for word in budgets if (value := word.partition("=")[2]) not in known]
    commands = []
    for (command, *rest), budgets in groups.items():
        several = ["-m", *rest, f"{BUDGET}={','.join(budgets)}"] if budgets else rest
        commands.append([command, *several])
    return commands


def complete(
    plan: Callable[[], list[SweepCell]],
    run: Callable[[Sequence[SweepCell]], int],
    console: Console,
    dry_run: bool = False,
) -> int:
    """Calibrate, run and tabulate the cells of an experiment.

    Args:
        plan: Lists the cells as they are now.
        run: Runs cells and returns 1 if one of them failed.
        console: Where each step is announced.
        dry_run: Whether to print the steps only.

    Returns:
        0 if every cell is done and every file written, else 1.
    """
    commands = calibrations(plan())
    for number, command in enumerate(commands, 1):
        console.print(
            f"[bold]calibration {number}/{len(commands)}[/] mustdrop {escape(shlex.join(command))}",
            soft_wrap=True, highlight=False,
        )  # fmt: skip
        if not dry_run:
            _mustdrop(command)  # what it could not find shows in the plan below
    cells = plan()
    work = [cell for cell in cells if cell.config is None or cell.unfinished]
    later = [cell for cell in work if cell.calibration] if dry_run else []
    reasons = unready([cell for cell in work if cell not in later])
    for cell, reason in reasons.items():
        console.print(f"[red]cannot run[/]: {escape(cell.name)}: {escape(reason)}", soft_wrap=True)
    ready = [cell for cell in work if cell not in reasons]
    console.print(f"{len(cells)} cells: {len(cells) - len(work)} done, {len(ready)} to run")
    roots = {
        Path(cell.config["output_root"], cell.config["experiment"])
        for cell in cells
        if cell.config is not None
    }
    files = {file: words for root in sorted(roots) for file, words in analyses(root).items()}
    if dry_run:
        for file, words in files.items():
            line = f"then mustdrop {shlex.join(words)}, into {file}"
            console.print(escape(line), soft_wrap=True, highlight=False)
        return 0
    failed = run(ready)
    if any(cell.folder and not cell.unfinished for cell in plan()):
        failed |= max(_mustdrop(words, file) for file, words in files.items())
        for file in files:
            console.print(f"written: {file}", soft_wrap=True, markup=False, highlight=False)
    return int(bool(failed or reasons))


def analyses(root: Path) -> dict[Path, list[str]]:
    """Commands that write tables, claims and the page of an experiment: file, words."""
    from analysis.tables.layouts import layouts  # pandas: only where there is a table to make

    runs = ["--runs", str(root)]
    tables = ["summary", *([root.name] if root.name in layouts() else [])]
    return {
        **{root / f"{name}.txt": ["tables", name, *runs] for name in tables},
        root / "claims.txt": ["claims", *runs],
        root / "report.html": ["report", str(root)],
    }


def _mustdrop(words: Sequence[str], out: Path | None = None) -> int:
    """Run another command in a process of its own, and return 1 if it failed.

    Args:
        words: Words of the command.
        out: File for what it prints, unless it writes the file itself.
    """
    command = [sys.executable, "-m", "mustdrop.cli", *words]
    if out is None or out.suffix != ".txt":
        return int(subprocess.run(command, check=False).returncode > 0)
    with out.open("w", encoding="utf-8") as file:
        return int(subprocess.run(command, stdout=file, check=False).returncode > 0)
