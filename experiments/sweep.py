"""Plan, watch, complete, tabulate, retry or submit the cells of an experiment, by its run folders.

mustdrop sweep experiment=table4      # the whole table: thresholds, runs, tables, figures, page
mustdrop sweep complete table4        # the same; --slurm submits it, --dry-run lists the steps
mustdrop sweep plan table4            # cells, their states and the time left
mustdrop sweep estimate table4        # the time of all cells, by a probe of vanilla
mustdrop sweep calibrate table4       # find missing thresholds only
mustdrop sweep status table4          # a live table; --once prints it once
mustdrop sweep table table4           # one table of the finished cells
mustdrop sweep retry table4           # run failed, stopped and stale cells again, here
mustdrop sweep submit table4          # unfinished cells as one SLURM array
mustdrop sweep chain "run -m experiment=table2" "judge outputs/table2 --budget 9000"
                                      # SLURM jobs, each after the success of the one before it
mustdrop run -m experiment=table4     # run all, here or by launcher=joblib, slurm

The overrides after the name are those of mustdrop run: model=pocket budget=t192,t64. A sweep
without a preset has the name none: plan none method=fastv,random. status also takes a folder.
Overrides calibration.n=96 are those of mustdrop calibrate.
"""

import mustdrop.openmp  # noqa: F401  # isort: skip  # before torch loads
import argparse
import shlex
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from experiments.cli.errors import BAD_INPUT, KNOWN, STOPPED, leave, message
from experiments.sweeps.calibrating import calibrate_all, calibration_settings, calibrations
from experiments.sweeps.cells import SweepCell, cells_under, plan
from experiments.sweeps.complete import complete
from experiments.sweeps.estimate import QUESTIONS, estimated
from experiments.sweeps.launch import require_start, tabulate
from experiments.sweeps.on_cluster import complete_on_cluster
from experiments.sweeps.ready import UNREADY
from experiments.sweeps.shown import show_plan, show_status
from mustdrop.presets.folders import preset_names

OF_EXPERIMENT = (
    "plan", "status", "table", "complete", "estimate", "calibrate", "retry", "submit",
)  # fmt: skip
REPORTING = ("submit", "complete", "calibrate")  # commands that report unready cells themselves
WORKING = ("retry", "complete", "estimate", "calibrate")  # commands that work in this process
EXPERIMENT = "experiment="


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
    from experiments.run import attempt, terminate
    from mustdrop.presets.compose import composed

    signal.signal(signal.SIGTERM, terminate)
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


def command_line(arguments: Sequence[str]) -> list[str]:
    """Arguments with their command: overrides alone complete their experiment.

    Raises:
        ValueError: If the first argument is the name of a preset.
    """
    given = list(arguments)
    first = given[0] if given else ""
    if first in preset_names("experiment"):
        raise ValueError(
            f"mustdrop sweep {first}: the command is missing, as in mustdrop sweep complete "
            f"{first} (or plan, status, table)"
        )
    if "=" not in first or first.startswith("-"):
        return given
    names = [text.removeprefix(EXPERIMENT) for text in given if text.startswith(EXPERIMENT)]
    others = [text for text in given if not text.startswith(EXPERIMENT)]
    return ["complete", names[-1] if names else "none", *others]


def parsed(arguments: Sequence[str]) -> argparse.Namespace:
    """Options of a command line."""
    parser = argparse.ArgumentParser(
        prog="mustdrop sweep", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name in OF_EXPERIMENT:
        command = commands.add_parser(name)
        command.add_argument("experiment", help="a preset of conf/experiment/")
        command.add_argument("overrides", nargs="*", help="name=value[,value], as for run.py")
        if name == "status":
            command.add_argument("--once", action="store_true", help="print the table once")
        if name in ("complete", "estimate"):
            help_text = f"questions of a probe (default: {QUESTIONS}; 0: no estimate)"
            command.add_argument("--probe", type=int, default=QUESTIONS, help=help_text)
        if name == "complete":
            command.add_argument("--slurm", action="store_true", help="submit it as SLURM jobs")
        if name in ("complete", "submit"):
            command.add_argument("--site", type=Path, help="site file (slurm/README.md)")
            help_text = "print the script only" if name == "submit" else "print the steps only"
            command.add_argument("--dry-run", action="store_true", help=help_text)
        if name == "submit":
            command.add_argument(
                "--unready",
                choices=UNREADY,
                default=UNREADY[0],
                help="what to do if some cells cannot start",
            )
    chain = commands.add_parser("chain")
    chain.add_argument("commands", nargs="+", help="commands of mustdrop, one text each")
    chain.add_argument("--site", type=Path, help="site file (slurm/README.md)")
    chain.add_argument("--dry-run", action="store_true", help="print the script only")
    # Overrides may also come behind an option, which argparse alone does not allow in a subcommand.
    options, others = parser.parse_known_args(arguments)
    if others:
        if "overrides" not in options or any(text.startswith("-") for text in others):
            parser.error(f"unrecognized arguments: {' '.join(others)}")
        options.overrides += others
    if getattr(options, "probe", 0) < 0:
        raise ValueError(f"--probe must be a count of questions, 0 or more, got {options.probe}")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one of the commands and return its exit code."""
    console = Console(width=None if sys.stdout.isatty() else 140)
    command = ""
    try:
        options = parsed(command_line(sys.argv[1:] if arguments is None else arguments))
        command = options.command
        if command == "chain":
            return submit_commands(options.commands, options.site, options.dry_run, console)
        return _of_experiment(options, console)
    except KNOWN as error:
        print(f"error: {message(error)}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        if command in WORKING:
            raise
        return STOPPED  # nothing was running here


def _of_experiment(options: argparse.Namespace, console: Console) -> int:
    """Run a command about the cells of one experiment."""
    overrides, settings = calibration_settings(options.overrides)
    folder = Path(options.experiment)
    is_folder = options.command == "status" and folder.is_dir()
    cells = cells_under(folder) if is_folder else plan(options.experiment, overrides)
    for cell in () if options.command in REPORTING else cells:
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
        case "estimate":
            estimate = estimated(cells, options.probe, bool(options.probe), console)
            estimate.show(console)
            return int(bool(estimate.unknown))
        case "calibrate":
            return calibrate_all(calibrations(cells, settings), console)
        case "complete" if options.slurm:
            words = [options.experiment, *options.overrides]
            return complete_on_cluster(
                cells, words, options.site, options.dry_run, console, options.probe
            )
        case "complete":
            return complete(
                cells,
                lambda: plan(options.experiment, overrides),
                lambda ready: run_here(ready, console),
                console, settings, options.probe, options.dry_run,
            )  # fmt: skip
        case "retry":
            return retry(cells, console)
        case _:
            return submit(cells, options.site, options.dry_run, console, options.unready)


if __name__ == "__main__":
    leave(main)
