"""Takes the measurements of a record, in a process of its own.

    python -m experiments.gpu.worker RECORD.json STARTED

It continues where an earlier process ended: cells that have begun are left out.
"""

import gc
import json
import sys
import traceback
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from experiments.gpu import environment
from experiments.gpu.cells import SIZES, Setting, cells
from experiments.gpu.progress import ProgressLine
from experiments.gpu.report import table
from experiments.gpu.runner import OPEN, GpuCell, Runner, dumps, write

NO_DEVICE, BROKEN = 2, 70  # exit codes


def wanted_cells(options: Mapping[str, Any]) -> list[GpuCell]:
    """Cells of a run by its options; empty if ``only`` matches none."""
    setting = Setting(options["device"], rounds=options["rounds"], **SIZES[options["size"]])
    return [cell for cell in cells(setting) if options["only"] in cell.name]


def work(path: Path, started: float) -> int:
    """Take the measurements that the record at ``path`` lacks.

    Args:
        path: Record, which is saved after every step, and the table next to it after every cell.
        started: Moment from which the time limit counts, on the clock of ``time.monotonic``.

    Returns:
        0, ``NO_DEVICE`` if torch sees none, or ``BROKEN`` if the device no longer works.
    """
    record = json.loads(path.read_text(encoding="utf-8"))
    options = record["options"]
    if options["device"] == "cuda" and not environment.has_cuda():
        return NO_DEVICE
    record.setdefault("device", described_device(options["device"]))
    written = -1

    def save(current: Mapping[str, Any]) -> None:
        """Write the record, and the table whenever a cell has ended."""
        nonlocal written
        write(path, dumps(current))
        ended = sum(entry["state"] not in OPEN for entry in current["cells"])
        if ended != written:
            written = ended
            write(path.with_suffix(".txt"), table(current))

    line = ProgressLine(sys.stderr)
    free = partial(clear, options["device"])
    runner = Runner(record, options["limit"], save, line.show, free, started=started)
    try:
        runner.run(wanted_cells(options))
    except Exception:  # the device no longer works: a new process may go on
        line.clear()
        traceback.print_exc()
        return BROKEN
    line.clear()
    return 0


def described_device(name: str) -> dict[str, Any]:
    """Describe the device, or the error of a wrong installation, which every cell will meet."""
    try:
        from mustdrop.profiling.device import Device

        return Device(name).describe()
    except Exception as error:
        return {"name": "unknown", "error": f"{type(error).__name__}: {error}"}


def clear(name: str) -> None:
    """Free what failed steps and ended cells have left in the memory of a device.

    After an error of the device itself, waiting for it raises.
    """
    gc.collect()
    module = sys.modules.get("mustdrop.profiling.device")
    if module is not None:  # otherwise a wrong installation has kept it from loading
        device = module.Device(name)
        device.wait()
        device.free()


def main(given: Sequence[str]) -> int:
    """Run the command line."""
    path, started = given
    return work(Path(path), float(started))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
