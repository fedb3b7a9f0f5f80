"""Check which runs of a sweep cannot start, and why, before the first one starts."""

import json
from collections.abc import Sequence

from experiments.checks.run_checks import require_ready
from experiments.cli.errors import KNOWN, message
from experiments.sweeps.cells import SweepCell
from mustdrop.runs.repair import broken_sample

# actions of a sweep when some of its runs cannot start
UNREADY = ("refuse", "skip", "launch")


def unready(cells: Sequence[SweepCell], here: bool = True) -> dict[SweepCell, str]:
    """Find the runs that cannot start, with the reason of each.

    Args:
        cells: Unfinished runs, and runs that could not be composed.
        here: Whether the runs will use this machine, so that its devices are checked.
    """
    reasons: dict[SweepCell, str] = {}
    checked: dict[str, str] = {}
    for cell in cells:
        if cell.config is None:
            reasons[cell] = cell.error
            continue
        if cell.status.state == "running":
            continue
        broken = broken_sample(cell.folder) if cell.folder and not cell.config["force"] else None
        if broken is not None:
            reasons[cell] = f"{broken}: force=true starts again and keeps the old files aside"
            continue
        names = ("model", "benchmark", "dropper", "image", "controls", "tracker", "device")
        key = json.dumps([*(cell.config[name] for name in names), cell.config["budget"]])
        if key not in checked:
            try:
                require_ready(cell.config, here)
                checked[key] = ""
            except KNOWN as error:
                checked[key] = message(error)
        if checked[key]:
            reasons[cell] = checked[key]
    return reasons
