"""A sweep's cells as one SLURM array: a manifest, a script, sbatch; and what a task of it does.

Which cells there are, and which are unfinished, is told by whoever calls. Where a cell stands is
told by its folder, never by SLURM.
"""

import mustdrop.openmp  # noqa: F401  # isort: skip  # before torch loads
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from experiments.cluster.site_file import ROOT, Site

TEMPLATE = ROOT / "slurm" / "array.sbatch"
SCRIPT = ROOT / "experiments" / "run.py"


class ArrayCell(Protocol):
    """What is submitted: what ``experiments/run.py`` takes to run it, and the folder it fills."""

    @property
    def overrides(self) -> tuple[str, ...]: ...

    @property
    def folder(self) -> Path | None: ...


def submit(cells: Sequence[ArrayCell], site: Site, dry_run: bool = False) -> str:
    """One array, a task a cell.

    Args:
        cells: Those to run.
        site: Where.
        dry_run: Write and submit nothing.

    Returns:
        The array's job id; the script where it is a dry run.

    Raises:
        ValueError: If there is no cell, no sbatch, bash cannot read the script or sbatch refuses.
    """
    if not cells:
        raise ValueError("there is no cell to submit")
    folder = Path(site.logs)
    text = script(site, _free(folder), len(cells))
    read = subprocess.run(
        ["/bin/bash", "-n"], input=text, capture_output=True, text=True, check=False
    )
    if read.returncode != 0:
        raise ValueError(f"environment or run of the site file is no shell: {read.stderr.strip()}")
    if dry_run:
        return text
    manifest = write_manifest(cells, folder)
    file = manifest.with_suffix(".sbatch")
    file.write_text(script(site, manifest, len(cells)))
    try:
        done = subprocess.run(
            ["sbatch", "--parsable", str(file)], capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        raise ValueError(
            "there is no sbatch on this machine: submit from a login node, or look at the script "
            "with --dry-run"
        ) from None
    if done.returncode != 0:
        raise ValueError(f"sbatch refuses {file}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout.strip().partition(";")[0]  # the cluster's name follows where there are some


def write_manifest(cells: Sequence[ArrayCell], folder: Path) -> Path:
    """One line a cell, in a file of its own: an array that waits must find what it was sent with.

    Returns:
        The file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lines = [
        json.dumps({"overrides": list(cell.overrides), "folder": str(cell.folder)})
        for cell in cells
    ]
    while True:
        path = _free(folder)
        try:
            with path.open("x") as file:
                file.write("\n".join(lines) + "\n")
        except FileExistsError:  # another submission took the name just now
            continue
        return path


def script(site: Site, manifest: Path, cells: int, python: str = sys.executable) -> str:
    """What sbatch is given.

    Args:
        site: Where it runs.
        manifest: Its cells, a task a line.
        cells: How many.
        python: What runs a task where the site names nothing.
    """
    manifest = manifest.absolute()
    asked: dict[str, Any] = {
        "job-name": "mustdrop",
        "array": f"0-{cells - 1}%{site.array_limit}",
        **site.asked(),
        "requeue": True,
        "open-mode": "append",
        "signal": f"B:USR2@{site.signal_seconds}",
        "output": str(Path(site.logs).absolute() / "%A_%a.out"),
        "chdir": str(Path.cwd()),
    }
    flags = [
        f"#SBATCH --{name}" if value is True else f"#SBATCH --{name}={shlex.quote(str(value))}"
        for name, value in asked.items()
    ]
    run = site.run or shlex.quote(python)
    told = {
        "what": f"{cells} cells of {manifest}",
        "options": "\n".join(flags),
        "max_restarts": str(site.max_restarts),
        "environment": site.environment.rstrip("\n"),
        "threads": str(site.cpus_per_task),
        "command": f"{run} {shlex.quote(str(Path(__file__)))} task {shlex.quote(str(manifest))}",
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda found: told[found[1]], TEMPLATE.read_text())


def task(manifest: Path, index: int) -> None:
    """Become the run of one cell.

    Raises:
        ValueError: If the manifest has no such line.
    """
    lines = manifest.read_text().splitlines()
    if not 0 <= index < len(lines):
        raise ValueError(f"{manifest} has {len(lines)} cells, and none number {index}")
    cell = json.loads(lines[index])
    print(f"{cell['folder']}\n{shlex.join(cell['overrides'])}", flush=True)
    os.execv(sys.executable, [sys.executable, str(SCRIPT), *cell["overrides"]])


def _free(folder: Path) -> Path:
    """The first name of a manifest that no submission has."""
    number = 1
    while (folder / f"cells-{number:03}.jsonl").exists():
        number += 1
    return folder / f"cells-{number:03}.jsonl"


if __name__ == "__main__":
    if len(sys.argv) != 4 or sys.argv[1] != "task" or not sys.argv[3].isdigit():
        sys.exit("usage: job.py task MANIFEST INDEX")
    task(Path(sys.argv[2]), int(sys.argv[3]))
