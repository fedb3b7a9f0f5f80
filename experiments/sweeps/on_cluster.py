"""Complete an experiment by SLURM jobs: thresholds, then an array of runs, then tables."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from experiments.sweeps.cells import SweepCell
from experiments.sweeps.complete import show_states
from experiments.sweeps.estimate import Estimate, estimated
from experiments.sweeps.ready import unready


def complete_on_cluster(
    cells: Sequence[SweepCell],
    words: Sequence[str],
    site: Path | None,
    dry_run: bool,
    console: Console,
    probe: int,
) -> int:
    """Submit the jobs that complete an experiment; each starts when the one before it has ended.

    The last job completes what the others left, so it needs the settings of a run, too.

    Args:
        cells: Cells of the experiment.
        words: Name and overrides of the experiment, as typed.
        site: Site file of the cluster.
        dry_run: Whether to print the jobs only.
        console: Where the jobs are listed.
        probe: Number of questions of the probes; those of this machine are read, none is measured.

    Returns:
        0; 1 if some cells cannot start, which are left out.
    """
    from experiments.cluster.job import submit, submit_chain
    from experiments.cluster.site_file import load_site

    show_states(cells, console)
    work = [cell for cell in cells if cell.config is None or cell.unfinished]
    reasons = unready([cell for cell in work if not cell.calibration], here=False)
    for cell, reason in reasons.items():
        console.print(f"[red]cannot run[/]: {escape(cell.name)}: {escape(reason)}", soft_wrap=True)
    work = [cell for cell in work if cell not in reasons and cell.status.state != "running"]
    if probe:
        Estimate(estimated(work, probe, False, console).times).show(console)
    settings = load_site(site)
    jobs: list[str] = []

    def announce(text: str, job: str) -> None:
        jobs.append(job)
        name = f"job {len(jobs)}" if dry_run else f"job {job}"
        console.print(f"{name}: {text}", soft_wrap=True, markup=False, highlight=False)

    def submit_command(*command: str) -> None:
        chain = [] if dry_run else submit_chain([command], settings, after="".join(jobs[-1:]))
        announce(f"mustdrop {shlex.join(command)}", "".join(chain))

    if any(cell.calibration for cell in work):
        submit_command("sweep", "calibrate", *words)
    if work:
        job = "" if dry_run else submit(work, settings, after="".join(jobs[-1:]))
        announce(f"{len(work)} runs", job)
    submit_command("sweep", "complete", *words, "--probe", "0")
    return int(bool(reasons))
