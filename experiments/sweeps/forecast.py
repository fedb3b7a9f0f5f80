"""How long a cell will take, by the records of cells like it. Knows no model and no machine."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from experiments.sweeps.cells import SweepCell
from mustdrop.runs.folder import TornFile, read_record
from mustdrop.runs.status import RunStatus

# From the most alike to the least: what has to agree for a record to be gone by.
LIKE = (
    ("model", "benchmark", "method", "budget"),
    ("model", "method", "budget"),
    ("model", "method"),
    ("model",),
)


@dataclass(frozen=True)
class Forecast:
    """Seconds a sample, by what is known of a cell.

    Attributes:
        seconds: Of past records, by the values of one of :data:`LIKE`.
    """

    seconds: Mapping[tuple[Any, ...], float]

    @classmethod
    def of(cls, root: Path) -> "Forecast":
        """From all records under a folder of results."""
        seen: dict[tuple[Any, ...], list[float]] = {}
        for path in sorted(root.rglob("record.json")):
            try:
                record = read_record(path.parent)
            except TornFile:  # a forecast goes by the others
                continue
            if record is not None and record["n"]:
                for names in LIKE:
                    known = tuple(record[name] for name in names)
                    spent = record["seconds"] + record.get("controls_seconds", 0.0)
                    seen.setdefault(known, []).append(spent / record["n"])
        return cls({known: median(values) for known, values in seen.items()})

    def left(self, cell: SweepCell, now: RunStatus) -> float | None:
        """Seconds of work left in a cell; None where nothing like it is on record."""
        if now.wanted is None or cell.config is None:
            return None
        budget = cell.config["budget"]
        about = {
            **{name: cell.config[name]["name"] for name in ("model", "benchmark", "method")},
            "budget": budget["name"] if budget else "none",
        }
        for names in LIKE:
            known = self.seconds.get(tuple(about[name] for name in names))
            if known is not None:
                return known * max(now.wanted - now.n, 0)
        return None


def spoken(seconds: float | None) -> str:
    """A time as one says it: 40 s, 12 min, 3.5 h."""
    if seconds is None:
        return "?"
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
