"""Take all measurements that need a GPU, in one command with a time limit.

    make gpu                        # on the machine with the GPU; at most 5 minutes
    make gpu ARGS=--dry-run         # the same cells at tiny size on the CPU; seconds
    python -m experiments.gpu --show outputs/gpu/<card>.json

It writes one JSON after every step and one table after every cell, so that a killed run keeps its
measurements. See experiments/gpu/README.md.
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
from experiments.gpu.cells import SIZES, Setting, cells
from experiments.gpu.progress import ProgressLine
from experiments.gpu.report import DEFINITIONS, failures, table
from experiments.gpu.runner import OPEN, Runner, dumps, write

ROOT = Path(__file__).parents[2]


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the options of the command."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.gpu", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--dry-run", action="store_true", help="same as --device cpu --size tiny")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--size", choices=tuple(SIZES), default="full", help="size of the models")
    parser.add_argument("--limit", type=float, default=300, help="seconds for everything")
    parser.add_argument("--rounds", type=int, help="rounds of timed prefills (12; tiny: 2)")
    parser.add_argument("--only", default="", help="run only cells whose name contains this")
    parser.add_argument("--out", type=Path, default=ROOT / "outputs" / "gpu", help="folder")
    parser.add_argument("--show", type=Path, metavar="JSON", help="print the table of a record")
    options = parser.parse_args(given)
    if options.dry_run:
        options.device, options.size = "cpu", "tiny"
    if options.rounds is None:
        options.rounds = 12 if options.size == "full" else 2
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
    if options.device == "cuda" and not environment.has_cuda():
        sys.stderr.write("error: torch sees no CUDA device; --dry-run runs at tiny size on a CPU\n")
        return 2
    setting = Setting(options.device, rounds=options.rounds, **SIZES[options.size])
    wanted = [cell for cell in cells(setting) if options.only in cell.name]
    if not wanted:
        names = ", ".join(repr(cell.name) for cell in cells(setting))
        sys.stderr.write(f"error: --only {options.only!r} matches no cell; the cells are {names}\n")
        return 2
    record = start(options, sys.argv[1:] if given is None else given)
    path = options.out / f"{slug(record)}-{datetime.now(UTC):%Y%m%d-%H%M%S}.json"

    written = 0

    def save(current: Any) -> None:
        """Write the record, and the table whenever a cell has ended."""
        nonlocal written
        write(path, dumps(current))
        ended = sum(entry["state"] not in OPEN for entry in current["cells"])
        if ended != written:
            written = ended
            write(path.with_suffix(".txt"), table(current))

    line = ProgressLine(sys.stderr)
    for sentence in record["misfits"]:
        line.say(sentence)
    runner = Runner(record, options.limit, save, line.show, started=started)
    runner.run(wanted)
    record["machine_at_end"] = {"nvidia_smi": environment.nvidia_smi()}
    write(path, dumps(record))
    text = table(record)
    write(path.with_suffix(".txt"), text)
    line.clear()
    sys.stdout.write(f"{text}\nRecord: {path}\nTable:  {path.with_suffix('.txt')}\n")
    return 1 if failures(record) else 0


def start(options: argparse.Namespace, given: Sequence[str]) -> dict[str, Any]:
    """Make the record before anything is measured."""
    versions = environment.versions()
    schedule = json.loads((Path(__file__).parent / "schedules.json").read_text(encoding="utf-8"))
    record = {
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
    try:
        from mustdrop.profiling.device import Device

        record["device"] = Device(options.device).describe()
    except Exception as error:  # a wrong installation, which every cell records as its error
        record["device"] = {"name": "unknown", "error": f"{type(error).__name__}: {error}"}
    return record


def slug(record: dict[str, Any]) -> str:
    """Turn the card's name into a file name."""
    return re.sub(r"[^a-z0-9]+", "-", record["device"]["name"].lower()).strip("-")


if __name__ == "__main__":
    sys.exit(main())
