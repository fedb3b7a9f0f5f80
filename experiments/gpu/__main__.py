"""Take all measurements that need a GPU, in one command with a time limit.

    make gpu                        # on the machine with the GPU; at most 6 minutes
    make gpu ARGS=--dry-run         # the same cells at tiny size on the CPU; seconds
    python -m experiments.gpu --show outputs/gpu/<card>.json

It writes one JSON after every step and one table after every cell, so that a killed run keeps its
measurements. A process of its own measures; where it ends early, another one goes on with the cells
that are left. See experiments/gpu/README.md.
"""

import argparse
import json
import re
import shlex
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from experiments.gpu import environment
from experiments.gpu.cells import SIZES
from experiments.gpu.report import DEFINITIONS, failures, table
from experiments.gpu.runner import NOT_REACHED, dumps, write
from experiments.gpu.supervisor import supervised
from experiments.gpu.worker import NO_DEVICE, wanted_cells

ROOT = Path(__file__).parents[2]
NONE = "error: torch sees no CUDA device; --dry-run runs at tiny size on a CPU\n"
INTERRUPTED = 130  # exit code after Ctrl-C


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the options of the command."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.gpu", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--dry-run", action="store_true", help="same as --device cpu --size tiny")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--size", choices=tuple(SIZES), default="full", help="size of the models")
    parser.add_argument("--limit", type=float, default=340, help="seconds for everything")
    parser.add_argument("--rounds", type=int, help="rounds of timed prefills (5; tiny: 1)")
    parser.add_argument("--only", default="", help="run only cells whose name contains this")
    parser.add_argument("--out", type=Path, default=ROOT / "outputs" / "gpu", help="folder")
    parser.add_argument("--show", type=Path, metavar="JSON", help="print the table of a record")
    options = parser.parse_args(given)
    if options.dry_run:
        options.device, options.size = "cpu", "tiny"
    if options.rounds is None:
        options.rounds = 5 if options.size == "full" else 1
    for name in ("limit", "rounds"):
        if not getattr(options, name) > 0:
            parser.error(f"--{name} must be more than 0, got {getattr(options, name)}")
    return options


def main(given: Sequence[str] | None = None) -> int:
    """Measure and print; return 0 if all went well, 1 if a step failed, 2 if nothing can run."""
    started = time.monotonic()  # the limit counts the imports too
    options = arguments(given)
    if options.show is not None:
        sys.stdout.write(table(json.loads(options.show.read_text(encoding="utf-8"))))
        return 0
    wanted = vars(options)
    chosen = wanted_cells(wanted)
    if not chosen:
        names = ", ".join(repr(cell.name) for cell in wanted_cells({**wanted, "only": ""}))
        sys.stderr.write(f"error: --only {options.only!r} matches no cell; the cells are {names}\n")
        return 2
    record = start(options, sys.argv[1:] if given is None else given)
    record["cells"] = [{"cell": cell.name, "state": NOT_REACHED} for cell in chosen]
    name = slug(environment.device_name(options.device))
    path = options.out.resolve() / f"{name}-{datetime.now(UTC):%Y%m%d-%H%M%S}.json"
    for sentence in record["misfits"]:
        sys.stderr.write(f"{sentence}\n")
    write(path, dumps(record))
    try:
        if supervised(path, options.limit, started) == NO_DEVICE:
            path.unlink()
            sys.stderr.write(NONE)
            return NO_DEVICE
    except KeyboardInterrupt:
        sys.stderr.write("\ninterrupted; what was measured is kept\n")
        return INTERRUPTED
    finally:
        if path.exists():
            text = closed(path)
            sys.stdout.write(f"{text}\nRecord: {path}\nTable:  {path.with_suffix('.txt')}\n")
    return 1 if failures(json.loads(path.read_text(encoding="utf-8"))) else 0


def closed(path: Path) -> str:
    """Add the state of the machine to the record, write its table, and return the table."""
    record = json.loads(path.read_text(encoding="utf-8"))
    record["machine_at_end"] = {"nvidia_smi": environment.nvidia_smi()}
    write(path, dumps(record))
    text = table(record)
    write(path.with_suffix(".txt"), text)
    return text


def start(options: argparse.Namespace, given: Sequence[str]) -> dict[str, Any]:
    """Make the record before anything is measured."""
    versions = environment.versions()
    schedule = json.loads((Path(__file__).parent / "schedules.json").read_text(encoding="utf-8"))
    return {
        "what": "dropping against masking, device waits, and times against the reference time",
        "command": shlex.join(["python", "-m", "experiments.gpu", *given]),
        "options": {
            name: getattr(options, name) for name in ("device", "size", "limit", "rounds", "only")
        },
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "code": environment.code(ROOT),
        "versions": versions, "misfits": environment.misfits(versions),
        "machine": environment.machine(), "schedules": schedule, "definitions": DEFINITIONS,
    }  # fmt: skip


def slug(name: str) -> str:
    """Turn a device's name into a part of a file name."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


if __name__ == "__main__":
    sys.exit(main())
