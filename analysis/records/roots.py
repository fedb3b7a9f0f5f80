"""The finished runs under several results folders, each once.

Knows nothing about what is made of them.
"""

from collections.abc import Sequence
from pathlib import Path

from analysis.records.cells import NothingLeft, RunResult, load
from analysis.records.left_out import leave_out


def load_each(roots: Sequence[Path], metric: str | None = None) -> list[RunResult]:
    """The runs under all these folders, which may lie in one another.

    Args:
        roots: Folders of runs.
        metric: The score to read; by default each benchmark's own.

    Raises:
        FileNotFoundError: If a folder is missing.
        ValueError: See :func:`analysis.records.cells.load`; that no run can be read counts only
            where no folder has another.

    Warns:
        LeftOut: See :func:`analysis.records.cells.load`.
    """
    found: dict[Path, RunResult] = {}
    empty = []
    for root in roots:
        try:
            found |= {Path(cell["folder"]).resolve(): cell for cell in load(root, metric)}
        except NothingLeft as error:
            empty.append(error)
    if empty and not found:
        raise empty[0]
    for error in empty:
        leave_out(error)
    return list(found.values())
