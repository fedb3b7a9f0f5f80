"""Read the finished runs under several results folders, each run once.

Knows nothing about how they are used.
"""

from collections.abc import Sequence
from pathlib import Path

from analysis.records.cells import NothingLeft, RunResult, load
from analysis.records.left_out import leave_out


def load_folders(roots: Sequence[Path], metric: str | None = None) -> list[RunResult]:
    """Read the finished runs under these folders, each run once.

    Args:
        roots: Folders of runs; one may contain another.
        metric: Name of the score to read; by default the metric of each benchmark.

    Raises:
        FileNotFoundError: If a folder is missing.
        ValueError: See :func:`analysis.records.cells.load`; a folder without a readable run is an
            error only if no other folder has one.

    Warns:
        LeftOut: See :func:`analysis.records.cells.load`.
    """
    cells: dict[Path, RunResult] = {}
    empty = []
    for root in roots:
        try:
            cells |= {Path(cell["folder"]).resolve(): cell for cell in load(root, metric)}
        except NothingLeft as error:
            empty.append(error)
    if empty and not cells:
        raise empty[0]
    for error in empty:
        leave_out(error)
    return list(cells.values())
