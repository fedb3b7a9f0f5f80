"""A tracker beside a run: a process of its own reads the run's folder, and never the run it.

The disk is the truth. The tracker's process tails samples.jsonl and tells a service; the measuring
process only starts it, waits for it at the end no longer than it may, and says in one line what
came of it. So no tracker can block a run, slow it by its network, or change its result, and what
it did not get through is told again from the folder later. Knows no service and no configuration.

    track.json   what the service holds of the run, as far as the tracker knows
    track.log    what tracker and service printed
"""

import json
import os
import signal
import subprocess
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Protocol, runtime_checkable

import psutil

GRACE = 5.0  # seconds beyond its limit that a tracker gets to end itself
PATIENCE = 10.0  # seconds after which whoever waits is told what for
SHARED = 2.0  # seconds between the polite and the hard way of ending a process


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


class Watched:
    """The tracker's process, as the measuring one sees it: a context around the run.

    Nothing in here raises: what goes wrong with a tracker is one line.

    Args:
        tracker: What it runs; None: nothing.
        folder: The run's.
        command: That starts it; it ends when its standard input does.
        environment: What it gets beside ours.
        say: Where the line goes.
    """

    def __init__(
        self,
        tracker: Tracker | None,
        folder: Path,
        command: Sequence[str],
        environment: Mapping[str, str] | None = None,
        say: Callable[[str], None] | None = None,
    ) -> None:
        self.tracker, self.folder, self.command = tracker, folder, list(command)
        self.environment = dict(environment or {})
        self.say = say or (lambda line: print(line, file=sys.stderr))
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Let it follow the folder, which must be there."""
        if self.tracker is None or not self.tracker.wanted:
            return
        try:
            (self.folder / "track.json").unlink(missing_ok=True)
            with (self.folder / "track.log").open("ab") as log:
                # a session of its own: ^C is for the run, which then says that it is over
                self.process = subprocess.Popen(
                    self.command, stdin=subprocess.PIPE, stdout=log, stderr=log,
                    env={**os.environ, **self.environment}, start_new_session=True,
                )  # fmt: skip
        except OSError as error:
            self._warn(f"could not be started: {error}")

    def __enter__(self) -> "Watched":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.process is None:
            return
        try:
            # whoever stops a run by hand or by signal waits for nothing: the tracker ends alone
            interrupted = error is not None and not isinstance(error, Exception)
            self._leave(self.process, wait=not interrupted)
        except Exception as trouble:  # the tracker's boundary: a result is never lost to it
            self._warn(f"{type(trouble).__name__}: {trouble}")

    def _leave(self, process: "subprocess.Popen[bytes]", wait: bool) -> None:
        assert self.tracker is not None and process.stdin is not None
        with suppress(OSError):
            process.stdin.close()
        if not wait:
            return
        limit = self.tracker.finish_seconds + GRACE
        try:
            try:
                process.wait(min(PATIENCE, limit))
            except subprocess.TimeoutExpired:
                at_most = self.tracker.finish_seconds
                self.say(f"{self.tracker.name}: finishing, at most {at_most:g} s")
                process.wait(limit)
        except (subprocess.TimeoutExpired, KeyboardInterrupt) as stopped:
            end(process.pid)
            process.wait(SHARED)
            if isinstance(stopped, KeyboardInterrupt):
                self._warn("not waited for")
                return
        self._tell()

    def _tell(self) -> None:
        assert self.tracker is not None
        told = read(self.folder)
        if told.get("complete") and told["mode"] == "online":
            self.say(f"{self.tracker.name}: {told['where']}")
        elif told.get("complete") and told.get("warning") is None:
            self.say(f"{self.tracker.name}: {told['mode']}, {told['where']}")
        else:
            self._warn(told.get("warning") or "ended early, see track.log")

    def _warn(self, what: str) -> None:
        assert self.tracker is not None
        self.say(
            f"warning: {self.tracker.name}: {what}. The run's folder holds everything; "
            f"to upload it: python experiments/sync.py {self.folder}"
        )


def read(folder: Path) -> dict[str, Any]:
    """What track.json tells; nothing where there is none."""
    path = Path(folder) / "track.json"
    return json.loads(path.read_text()) if path.exists() else {}


def write(folder: Path, told: Mapping[str, Any]) -> None:
    """Replace track.json, whole or not at all."""
    temporary = Path(folder) / "track.tmp"
    temporary.write_text(json.dumps(told, indent=1) + "\n")
    temporary.replace(Path(folder) / "track.json")


def end(pid: int) -> None:
    """End a process and all below it, a service that left its session included."""
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        family = [*process.children(recursive=True), process]
        for member in family[:-1]:
            with suppress(psutil.NoSuchProcess):
                member.send_signal(signal.SIGTERM)
        _, left = psutil.wait_procs(family[:-1], timeout=SHARED)
        for member in [*left, process]:
            with suppress(psutil.NoSuchProcess):
                member.kill()


class Leash:
    """Inside the tracker's process: when the run is over, and the end of the time after that.

    Args:
        seconds: How long this process may go on after the run.
        last_words: Called before it is ended by force.
    """

    def __init__(self, seconds: float, last_words: Callable[[], None]) -> None:
        self.seconds, self.last_words = seconds, last_words
        self.over = threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        # standard input ends when the run says so or dies, kill -9 included
        with suppress(OSError):
            while os.read(0, 1):
                pass
        self.over.set()
        threading.Event().wait(self.seconds)
        self.last_words()
        end(os.getpid())
