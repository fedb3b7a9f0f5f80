"""A sweep's cells as one SLURM array, or commands as a chain of jobs: manifest, script, one task.

The caller chooses the cells. The status of a cell is read from its folder, never from SLURM.
"""

import mustdrop.openmp  # noqa: F401  # isort: skip  # before torch loads
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from experiments.cluster.site_file import ROOT, Site

TEMPLATE = ROOT / "slurm" / "array.sbatch"
# commands that a chain may run; none of them waits for a user
CHAINED = ("calibrate", "sweep", "run", "judge", "tables", "claims", "figures", "report", "profile")
SCRIPT = ROOT / "experiments" / "run.py"


class ArrayCell(Protocol):
    """A cell to submit: its arguments of ``mustdrop run`` and its folder."""

    @property
    def overrides(self) -> tuple[str, ...]: ...

    @property
    def folder(self) -> Path | None: ...


def submit(cells: Sequence[ArrayCell], site: Site, dry_run: bool = False, after: str = "") -> str:
    """Submit cells as one array, with one task for each cell.

    Args:
        cells: Cells to run.
        site: Site of the cluster.
        dry_run: Whether to write and submit nothing.
        after: Id of a job that must have ended, whether it succeeded or not; empty for none.

    Returns:
        Job id of the array; the script in a dry run.

    Raises:
        ValueError: If there is no cell or no sbatch, bash cannot read the script, or sbatch fails.
    """
    if not cells:
        raise ValueError("there is no cell to submit")
    folder = Path(site.logs)
    text = script(site, _free(folder), len(cells))
    check = subprocess.run(
        ["/bin/bash", "-n"], input=text, capture_output=True, text=True, check=False
    )
    if check.returncode != 0:
        raise ValueError(
            f"bash cannot read environment or run of the site file: {check.stderr.strip()}"
        )
    if dry_run:
        return text
    lines = [
        {"overrides": list(cell.overrides), "folder": str(cell.folder or "")} for cell in cells
    ]
    return _sbatch(_written(site, lines), *_ended(after))


def submit_chain(
    commands: Sequence[Sequence[str]], site: Site, dry_run: bool = False, after: str = ""
) -> list[str]:
    """Submit commands as jobs, each of which starts when the one before it has succeeded.

    If a job fails, SLURM cancels those after it.

    Args:
        commands: Arguments of ``mustdrop``, one list for each job.
        site: Site of the cluster.
        dry_run: Whether to write and submit nothing.
        after: Id of a job that must have ended before the first one starts; empty for none.

    Returns:
        Ids of the jobs; in a dry run the script alone.

    Raises:
        ValueError: If a command is none of ``CHAINED``, or as :func:`submit`.
    """
    for command in commands:
        if not command or command[0] not in CHAINED:
            raise ValueError(
                f"a command of a chain must start with one of {', '.join(CHAINED)}, got "
                f"{shlex.join(command)!r}"
            )
    if dry_run:
        return [script(site, _free(Path(site.logs)), len(commands))]
    file = _written(site, [{"command": list(command)} for command in commands])
    jobs: list[str] = []
    for index in range(len(commands)):
        waits = [f"--dependency=afterok:{jobs[-1]}", "--kill-on-invalid-dep=yes"] if jobs else []
        jobs.append(_sbatch(file, f"--array={index}", *(waits or _ended(after))))
    return jobs


def _ended(job: str) -> list[str]:
    """Option of sbatch to wait until a job has ended in any way; none without a job."""
    return [f"--dependency=afterany:{job}"] if job else []


def _written(site: Site, lines: Sequence[Mapping[str, Any]]) -> Path:
    """Write the manifest and the script of an array; the path of the script."""
    manifest = write_manifest(lines, Path(site.logs))
    file = manifest.with_suffix(".sbatch")
    file.write_text(script(site, manifest, len(lines)))
    return file


def _sbatch(file: Path, *options: str) -> str:
    """Submit a script; the id of its job.

    Raises:
        ValueError: If there is no sbatch, or it refuses the script.
    """
    try:
        done = subprocess.run(
            ["sbatch", "--parsable", *options, str(file)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    except FileNotFoundError:
        raise ValueError(
            "there is no sbatch on this machine: submit from a login node, or print the script "
            "with --dry-run"
        ) from None
    if done.returncode != 0:
        raise ValueError(f"sbatch refuses {file}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout.strip().partition(";")[0]  # with several clusters, a name follows the id


def write_manifest(lines: Sequence[Mapping[str, Any]], folder: Path) -> Path:
    """Write one line for each task to a new file, which stays unchanged while its jobs wait."""
    folder.mkdir(parents=True, exist_ok=True)
    while True:
        path = _free(folder)
        try:
            with path.open("x") as file:
                file.writelines(f"{json.dumps(line)}\n" for line in lines)
        except FileExistsError:  # another submission has just taken the name
            continue
        return path


def script(site: Site, manifest: Path, cells: int, python: str = sys.executable) -> str:
    """Fill in the script for sbatch.

    Args:
        site: Site of the cluster.
        manifest: File of the cells, one task a line.
        cells: Number of tasks.
        python: Python that runs a task if the site names no command.
    """
    manifest = manifest.absolute()
    options: dict[str, Any] = {
        "job-name": "mustdrop",
        "array": f"0-{cells - 1}%{site.array_limit}",
        **site.sbatch_options(),
        "requeue": True,
        "open-mode": "append",
        "signal": f"B:USR2@{site.signal_seconds}",
        "output": str(Path(site.logs).absolute() / "%A_%a.out"),
        "chdir": str(Path.cwd()),
    }
    flags = [
        f"#SBATCH --{name}" if value is True else f"#SBATCH --{name}={shlex.quote(str(value))}"
        for name, value in options.items()
    ]
    run = site.run or shlex.quote(python)
    values = {
        "what": f"{cells} tasks of {manifest}",
        "options": "\n".join(flags),
        "max_restarts": str(site.max_restarts),
        "environment": site.environment.rstrip("\n"),
        "threads": str(site.cpus_per_task),
        "command": f"{run} {shlex.quote(str(Path(__file__)))} task {shlex.quote(str(manifest))}",
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda match: values[match[1]], TEMPLATE.read_text())


def task(manifest: Path, index: int) -> None:
    """Replace this process by the run of one cell, or by one command of a chain.

    Raises:
        ValueError: If the manifest has no line of that index.
    """
    lines = manifest.read_text().splitlines()
    if not 0 <= index < len(lines):
        raise ValueError(f"{manifest} has {len(lines)} cells, but no cell {index}")
    cell = json.loads(lines[index])
    if "command" in cell:
        title, program = shlex.join(["mustdrop", *cell["command"]]), ["-m", "mustdrop.cli"]
    else:
        title, program = f"{cell['folder']}\n{shlex.join(cell['overrides'])}", [str(SCRIPT)]
    print(title, flush=True)
    arguments = cell.get("command") or cell["overrides"]
    os.execv(sys.executable, [sys.executable, *program, *arguments])


def _free(folder: Path) -> Path:
    """Find the first manifest name that no submission uses."""
    number = 1
    while (folder / f"cells-{number:03}.jsonl").exists():
        number += 1
    return folder / f"cells-{number:03}.jsonl"


if __name__ == "__main__":
    if len(sys.argv) != 4 or sys.argv[1] != "task" or not sys.argv[3].isdigit():
        sys.exit("usage: job.py task MANIFEST INDEX")
    task(Path(sys.argv[2]), int(sys.argv[3]))
