"""Find the thresholds that the runs of a sweep lack, in one process.

    python -m experiments.sweeps.calibrating PARENT "calibrate -m model=pocket budget=t64" ...

The commands of one model and benchmark follow each other, so that the model is loaded and the
questions are prepared once for all methods and budgets. A method's first pass over the questions
serves all its budgets.
"""

import mustdrop.openmp  # noqa: F401  # isort: skip  # before torch loads
import shlex
import sys
from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape

from experiments.checks.remedies import CALIBRATE
from experiments.cli.errors import STOPPED, leave
from experiments.sweeps.cells import SweepCell
from mustdrop.evaluation.ahead import end_with

BUDGET = "budget="
OF_CALIBRATIONS = "calibration."  # overrides of ``mustdrop calibrate`` alone
OF_MACHINE = ("device", "threads", "batch_size")  # overrides of runs that calibrations take, too


def calibrations(cells: Sequence[SweepCell], settings: Sequence[str] = ()) -> list[list[str]]:
    """Commands that find all missing thresholds, each for as many budgets as possible.

    Args:
        cells: Runs of the sweep.
        settings: Overrides that are added to each command; see :func:`calibration_settings`.

    Returns:
        Words of each command, after ``mustdrop``; those of one benchmark follow each other.
    """
    groups: dict[tuple[str, ...], list[str]] = {}
    for cell in cells:
        if not cell.calibration:
            continue
        budgets = [word for word in cell.calibration if word.startswith(BUDGET)]
        rest = tuple(word for word in cell.calibration if word not in budgets)
        known = groups.setdefault(rest, [])
        known += [value for word in budgets if (value := word.partition("=")[2]) not in known]
    commands: dict[str, list[list[str]]] = {}
    for (command, *rest), budgets in groups.items():
        several = ["-m", *rest, f"{BUDGET}{','.join(budgets)}"] if budgets else rest
        fit = [
            text
            for text in settings
            if (command,) == CALIBRATE or not text.startswith(OF_CALIBRATIONS)
        ]
        benchmark = next((word for word in rest if word.startswith("benchmark=")), "")
        commands.setdefault(benchmark, []).append([command, *several, *fit])
    return [words for group in commands.values() for words in group]


def calibration_settings(overrides: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split overrides into those of the runs, and those that calibrations take.

    ``calibration.n=96`` belongs to calibrations alone, ``device=cpu`` to both.
    """
    runs = [text for text in overrides if not text.startswith(OF_CALIBRATIONS)]
    settings = [
        text
        for text in overrides
        if text.startswith(OF_CALIBRATIONS) or text.partition("=")[0] in OF_MACHINE
    ]
    return runs, settings


def calibrate_all(commands: Sequence[Sequence[str]], console: Console) -> int:
    """Run calibrations one after the other in this process.

    Returns:
        1 if one of them failed, else 0.
    """
    from experiments import calibrate, vtw_layer

    failed = 0
    for number, (name, *words) in enumerate(commands, 1):
        line = f"[bold]calibration {number}/{len(commands)}[/] mustdrop {escape(name)} "
        console.print(line + escape(shlex.join(words)), soft_wrap=True, highlight=False)
        main = calibrate.main if (name,) == CALIBRATE else vtw_layer.main
        try:
            main(words)
        except SystemExit as end:  # its reason is printed; the other commands can still succeed
            if end.code == STOPPED:
                raise
            failed = 1
    return int(bool(failed or calibrate.failures))


def main(arguments: Sequence[str]) -> int:
    """Run commands, each given as one text, in a process that ends with its parent.

    Args:
        arguments: Process id of the parent, which may have ended already, and the commands.
    """
    parent, *commands = arguments
    end_with(int(parent))
    return calibrate_all([shlex.split(text) for text in commands], Console(width=140))


if __name__ == "__main__":
    leave(lambda: main(sys.argv[1:]))
