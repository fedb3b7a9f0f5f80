"""Complete an experiment: find the thresholds that its cells lack, run all cells, write tables.

Every step is skipped where its result is there already, so the same command continues after a stop.
"""

import os
import shlex
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from experiments.sweeps.calibrating import calibrations
from experiments.sweeps.cells import SweepCell
from experiments.sweeps.estimate import QUESTIONS, Estimate, estimated
from experiments.sweeps.forecast import spoken
from experiments.sweeps.ready import unready
from mustdrop.provenance.checkpoint_files import PACKAGED_FOLDERS, checkpoint_folder

FIGURES = "figures"


def complete(
    cells: Sequence[SweepCell],
    plan: Callable[[], list[SweepCell]],
    run: Callable[[Sequence[SweepCell]], int],
    console: Console,
    settings: Sequence[str] = (),
    probe: int = QUESTIONS,
    dry_run: bool = False,
) -> int:
    """Calibrate, estimate, run and tabulate the cells of an experiment.

    Args:
        cells: Cells of the experiment.
        plan: Lists the cells again, when thresholds were added.
        run: Runs cells and returns 1 if one of them failed.
        console: Where each step is announced.
        settings: Overrides that calibrations take.
        probe: Number of questions that measure the time before the runs; 0: no estimate.
        dry_run: Whether to print the steps only.

    Returns:
        0 if every cell is done and every file written, else 1.

    Raises:
        FileNotFoundError: If a model of the cells is missing and cannot be downloaded.
    """
    show_states(cells, console)
    commands = calibrations(cells, settings)
    if dry_run:
        for number, words in enumerate(commands, 1):
            line = f"calibration {number}/{len(commands)}: mustdrop {shlex.join(words)}"
            console.print(escape(line), soft_wrap=True, highlight=False)
    else:
        require_models([cell for cell in cells if cell.config is None or cell.unfinished])
        if commands:
            _calibrate(commands)  # what it could not find shows in the plan below
            cells = plan()
    work = [cell for cell in cells if cell.config is None or cell.unfinished]
    later = [cell for cell in work if cell.calibration] if dry_run else []
    reasons = unready([cell for cell in work if cell not in later])
    for reason, members in _by_reason(reasons).items():
        console.print(f"[red]cannot run[/]: {escape(members)}: {escape(reason)}", soft_wrap=True)
    ready = [cell for cell in work if cell not in reasons]
    console.print(f"{len(cells)} cells: {len(cells) - len(work)} done, {len(ready)} to run")
    estimate = estimated(ready, probe, not dry_run, console) if probe and ready else Estimate(())
    estimate.show(console)
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
    start = time.monotonic()
    failed = run(ready)
    if estimate.times:
        took = spoken(time.monotonic() - start)
        console.print(f"the runs took {took}, estimated {spoken(estimate.seconds)}")
    if any(cell.folder and not cell.unfinished for cell in cells):
        failed |= max(_mustdrop(words, file) for file, words in files.items())
        for file in files:
            console.print(f"written: {file}", soft_wrap=True, markup=False, highlight=False)
    return int(bool(failed or reasons))


def show_states(cells: Sequence[SweepCell], console: Console) -> None:
    """Print how many cells are in each state."""
    states = Counter(cell.status.state for cell in cells)
    counts = ", ".join(f"{count} {state}" for state, count in states.most_common())
    console.print(f"{len(cells)} cells: {counts}", highlight=False)


def require_models(cells: Sequence[SweepCell]) -> None:
    """Download the models of the cells that are not here yet, each once.

    Raises:
        FileNotFoundError: If a model is missing and cannot be downloaded.
    """
    models = {
        (cell.config["model"]["pretrained"], cell.config["model"]["revision"])
        for cell in cells
        if cell.config is not None
    }
    for pretrained, revision in sorted(models, key=str):
        if pretrained not in PACKAGED_FOLDERS:
            checkpoint_folder(pretrained, revision)


def analyses(root: Path) -> dict[Path, list[str]]:
    """Commands that write tables, claims, figures and the page of an experiment: file, words."""
    from analysis.tables.layouts import layouts  # pandas: only where there is a table to make

    runs = ["--runs", str(root)]
    filled = [
        name
        for name, layout in layouts().items()
        if root.name in (name, *(part.experiment for part in layout.parts))
    ]
    tables = ["summary", *filled]
    return {
        **{root / f"{name}.txt": ["tables", name, *runs] for name in tables},
        root / "claims.txt": ["claims", *runs],
        root / f"{FIGURES}.txt": [FIGURES, *runs, "--out", str(root / FIGURES)],
        root / "report.html": ["report", str(root)],
    }


def _by_reason(reasons: dict[SweepCell, str]) -> dict[str, str]:
    """Names of the cells that cannot run for the same reason."""
    names: dict[str, list[str]] = {}
    for cell, reason in reasons.items():
        names.setdefault(reason, []).append(cell.name)
    return {
        reason: first if not others else f"{first} and {len(others)} others"
        for reason, (first, *others) in names.items()
    }


def _calibrate(commands: Sequence[Sequence[str]]) -> None:
    """Run calibrations in a process of their own, which leaves no model in this one's memory."""
    texts = [shlex.join(words) for words in commands]
    module, parent = "experiments.sweeps.calibrating", str(os.getpid())
    command = [sys.executable, "-m", module, parent, *texts]
    subprocess.run(command, check=False)


def _mustdrop(words: Sequence[str], out: Path) -> int:
    """Run another command in a process of its own, and return 1 if it failed.

    Args:
        words: Words of the command. Figures that cannot be drawn are no failure.
        out: File for what it prints, unless it writes the file itself.
    """
    command = [sys.executable, "-m", "mustdrop.cli", *words]
    if out.suffix != ".txt":
        return int(subprocess.run(command, check=False).returncode > 0)
    figures = words[0] == FIGURES
    with out.open("w", encoding="utf-8") as file:
        errors = subprocess.STDOUT if figures else None
        code = subprocess.run(command, stdout=file, stderr=errors, check=False).returncode
    return int(code > int(figures))
