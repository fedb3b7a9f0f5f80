"""Which runs of a sweep cannot start, and why: asked of all of them before the first one starts."""

import json
from collections.abc import Sequence

from experiments.checks.run_checks import require_ready
from experiments.cli.errors import KNOWN, message
from experiments.sweeps.cells import SweepCell
from mustdrop.runs.repair import broken_sample

# What a sweep does where some of its runs cannot start.
UNREADY = ("refuse", "skip", "launch")


def unready(cells: Sequence[SweepCell], here: bool = True) -> dict[SweepCell, str]:
    """Those of some runs that cannot start, with the reason of each.

    Args:
        cells: Runs with work left, and those that could not be composed.
        here: Whether they will run on this machine, so that its devices count.
    """
    found: dict[SweepCell, str] = {}
    known: dict[str, str] = {}
    for cell in cells:
        if cell.config is None:
            found[cell] = cell.error
            continue
        if cell.status.state == "running":
            continue
        broken = broken_sample(cell.folder) if cell.folder and not cell.config["force"] else None
        if broken is not None:
            found[cell] = f"{broken}: force=true starts anew, and keeps the old files aside"
            continue
        names = ("model", "benchmark", "dropper", "image", "controls", "tracker", "device")
        what = json.dumps([*(cell.config[name] for name in names), cell.config["budget"]])
        if what not in known:
            try:
                require_ready(cell.config, here)
                known[what] = ""
            except KNOWN as error:
                known[what] = message(error)
        if known[what]:
            found[cell] = known[what]
    return found
