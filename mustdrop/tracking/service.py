"""What a tracker is, and what it is told of a run. Knows no service and no configuration.

The disk is the truth: a tracker is a process of its own that reads a run's folder, see
:mod:`mustdrop.tracking.process`, and what it did not get through is told again from there
later.

    track.json   what the service holds of the run, as far as the tracker knows
    track.log    what tracker and service printed
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable


@dataclass(frozen=True)
class Card:
    """What a service files a run under.

    Attributes:
        id: Experiment and run key.
        name: For people.
        group: The experiment.
        tags: Model, benchmark, method, budget.
        config: Resolved, with what the run's status tells of code and place under ``run``.
        started: When the first sample was asked for; another start is another measurement.
        folder: The run's.
    """

    id: str
    name: str
    group: str
    tags: tuple[str, ...]
    config: Mapping[str, Any]
    started: str
    folder: Path


@dataclass(frozen=True)
class Closing:
    """What is told of a run when it is over.

    Attributes:
        state: As its status has it; ``running`` where its process was killed.
        summary: Numbers and words by name.
        tables: Columns and rows by name; a cell may be a picture, as a PIL image or a path.
        files: To be kept with the run.
    """

    state: str
    summary: Mapping[str, Any]
    tables: Mapping[str, tuple[Sequence[str], Sequence[Sequence[Any]]]]
    files: Sequence[Path]


@runtime_checkable
class Sink(Protocol):
    """A run at a service.

    Attributes:
        first: Rows that the service holds already.
        told: For track.json: ``mode`` and where the run is found.
    """

    first: int
    told: dict[str, Any]

    def log(self, step: int, row: Mapping[str, float | int]) -> None:
        """One row."""

    def close(self, closing: Closing) -> None:
        """Tell the rest; return when the service has all of it."""


@dataclass(frozen=True)
class Tracker(ABC):
    """What a ``tracker`` of the configuration builds: how runs are told to a service.

    Attributes:
        project: The study.
        finish_seconds: How long the tracker may go on when the run is over.
        table_rows: Samples in the final table, the first ones.
        overlays: Pictures of what was dropped, of samples whose ledger was kept.
        name: Of the service and its package.
        extra: That installs it.

    Raises:
        ValueError: If a field cannot be used.
    """

    project: str
    finish_seconds: float = 60.0
    table_rows: int = 200
    overlays: int = 6

    name: ClassVar[str]
    extra: ClassVar[str]

    def __post_init__(self) -> None:
        if not self.project:
            raise ValueError("project must be a name, got none")
        if not self.finish_seconds > 0:
            raise ValueError(f"finish_seconds must be above 0, got {self.finish_seconds!r}")
        for name in ("table_rows", "overlays"):
            count = getattr(self, name)
            if isinstance(count, bool) or not isinstance(count, int) or count < 0:
                raise ValueError(f"{name} must be a count, 0 or more, got {count!r}")

    @property
    def wanted(self) -> bool:
        """Whether there is anything to do."""
        return True

    @abstractmethod
    def open(self, card: Card, live: bool) -> Sink:
        """Begin or go on.

        Args:
            card: Which run.
            live: It is being measured now; else it is told afterwards, and then a service that
                cannot be reached is an error.
        """


def read(folder: Path) -> dict[str, Any]:
    """What track.json tells; nothing where there is none."""
    path = Path(folder) / "track.json"
    return json.loads(path.read_text()) if path.exists() else {}


def write(folder: Path, told: Mapping[str, Any]) -> None:
    """Replace track.json, whole or not at all."""
    temporary = Path(folder) / "track.tmp"
    temporary.write_text(json.dumps(told, indent=1) + "\n")
    temporary.replace(Path(folder) / "track.json")
