"""Interface of trackers, and the data that they send. Knows no service and no configuration.

The disk is the truth: a tracker is a separate process that reads a run's folder, see
:mod:`mustdrop.tracking.process`. Data that it could not send can be sent later.

    track.json   what the service holds of the run, as far as the tracker knows
    track.log    output of the tracker and the service
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

# Columns and rows; a cell may be an image, as a PIL image or a path.
Table = tuple[Sequence[str], Sequence[Sequence[Any]]]


@dataclass(frozen=True)
class Card:
    """Identity of a run at a service.

    Attributes:
        id: Experiment and run key.
        name: Readable name.
        group: Experiment.
        tags: Model, benchmark, method, budget.
        config: Resolved config; its key ``run`` holds code, machine and job from the run's status.
        started: Time when the run was begun; a run with another start is another measurement.
        folder: Folder of the run.
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
    """Data that a tracker sends when a run is over.

    Attributes:
        state: State from the run's status; ``running`` if its process was killed.
        summary: Numbers and strings by name.
        tables: Tables by name.
        files: Files to upload with the run.
    """

    state: str
    summary: Mapping[str, Any]
    tables: Mapping[str, Table]
    files: Sequence[Path]


@runtime_checkable
class Sink(Protocol):
    """A run at a service.

    Attributes:
        first: Number of rows that the service holds already.
        entries: Entries for track.json: ``mode``, and ``where`` the run can be seen.
    """

    first: int
    entries: dict[str, Any]

    def log(self, step: int, row: Mapping[str, float | int]) -> None:
        """Send one row."""

    def close(self, closing: Closing) -> None:
        """Send the rest, and return when the service has all of it."""


@dataclass(frozen=True)
class Tracker(ABC):
    """Sends runs to a service; built from the config group ``tracker``.

    Attributes:
        project: Name of the project at the service.
        finish_seconds: Seconds that the tracker may take after the end of the run.
        table_rows: Number of samples in the final table, from the first on.
        overlays: Number of samples with a picture of the dropped tokens, of those with a ledger: an
            overlay of an image, or a film strip of a video.
        name: Name of the service and of its package.
        extra: Extra of mustdrop that installs the package.

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
            raise ValueError("project must be a name, got an empty string")
        if not self.finish_seconds > 0:
            raise ValueError(f"finish_seconds must be above 0, got {self.finish_seconds!r}")
        for name in ("table_rows", "overlays"):
            count = getattr(self, name)
            if isinstance(count, bool) or not isinstance(count, int) or count < 0:
                raise ValueError(f"{name} must be a count, 0 or more, got {count!r}")

    @property
    def wanted(self) -> bool:
        """Whether the tracker is switched on."""
        return True

    @abstractmethod
    def open(self, card: Card, live: bool) -> Sink:
        """Begin or continue a run at the service.

        Args:
            card: Identity of the run.
            live: Whether the run is being measured now; if it is over, a service that cannot be
                reached is an error.
        """


def read(folder: Path) -> dict[str, Any]:
    """Content of track.json; empty if there is no such file."""
    path = Path(folder) / "track.json"
    return json.loads(path.read_text()) if path.exists() else {}


def write(folder: Path, content: Mapping[str, Any]) -> None:
    """Replace track.json in one step, so that a reader never sees half of it."""
    temporary = Path(folder) / "track.tmp"
    temporary.write_text(json.dumps(content, indent=1) + "\n")
    temporary.replace(Path(folder) / "track.json")
