"""The traces of a run as the analysis reads them: one that is torn is left out with a warning.

Knows nothing about what is in a trace.
"""

from pathlib import Path

from analysis.records.left_out import leave_out
from mustdrop.runs.folder import trace_path
from mustdrop.runs.trace import Trace


def read_trace(folder: Path | str, doc_id: int) -> Trace | None:
    """The trace of one sample of a run; None where there is none, or none that can be read."""
    path = trace_path(Path(folder), doc_id)
    if not path.exists():
        return None
    try:
        return Trace.load(path)
    except (KeyError, IndexError, TypeError, ValueError, OSError) as error:
        leave_out(error if str(path) in str(error) else f"{path} is no trace: {error!r}")
        return None
