"""Forecast of a cell's time from the records of similar cells. Knows no model and no machine."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from experiments.sweeps.cells import SweepCell
from mustdrop.runs.folder import TornFile, read_record
from mustdrop.runs.status import RunStatus

# keys in which a record must equal the cell; the most similar records come first
KEYS = (
    ("model", "benchmark", "method", "budget"),
    ("model", "method", "budget"),
    ("model", "method"),
    ("model",),
)


@dataclass(frozen=True)
class Forecast:
    """Seconds per sample of past records.

    Attributes:
        seconds: Median seconds per sample, by the values of each entry of :data:`KEYS`.
    """

    seconds: Mapping[tuple[Any, ...], float]

    @classmethod
    def of(cls, root: Path) -> "Forecast":
        """Read all records under a folder of results."""
        seconds: dict[tuple[Any, ...], list[float]] = {}
        for path in sorted(root.rglob("record.json")):
            try:
                record = read_record(path.parent)
            except TornFile:  # the other records are enough for a forecast
                continue
            if record is not None and record["n"]:
                for names in KEYS:
                    key = tuple(record[name] for name in names)
                    spent = record["seconds"] + record.get("controls_seconds", 0.0)
                    seconds.setdefault(key, []).append(spent / record["n"])
        return cls({key: median(values) for key, values in seconds.items()})

    def left(self, cell: SweepCell, now: RunStatus) -> float | None:
        """Estimate the seconds of work left in a cell; None without a record of a similar cell."""
        if now.wanted is None or cell.config is None:
            return None
        budget = cell.config["budget"]
        values = {
            **{name: cell.config[name]["name"] for name in ("model", "benchmark", "method")},
            "budget": budget["name"] if budget else "none",
        }
        for names in KEYS:
            seconds = self.seconds.get(tuple(values[name] for name in names))
            if seconds is not None:
                return seconds * max(now.wanted - now.n, 0)
        return None


def spoken(seconds: float | None) -> str:
    """Format a time in a readable unit: 40 s, 12 min, 3.5 h."""
    if seconds is None:
        return "?"
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
