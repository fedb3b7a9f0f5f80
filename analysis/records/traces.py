"""Read the traces of a run; a torn trace is left out with a warning.

Knows nothing about the content of a trace.
"""

from pathlib import Path

from analysis.records.left_out import leave_out
from mustdrop.runs.folder import trace_path
from mustdrop.runs.trace import Trace


def read_trace(folder: Path | str, doc_id: int) -> Trace | None:
    """Trace of one sample of a run; None if it is missing or cannot be read."""
    path = trace_path(Path(folder), doc_id)
    if not path.exists():
        return None
    try:
        return Trace.load(path)
    except (KeyError, IndexError, TypeError, ValueError, OSError) as error:
        leave_out(error if str(path) in str(error) else f"{path} is not a trace: {error!r}")
        return None
