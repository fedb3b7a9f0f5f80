"""A tracker's process beside a run: started, waited for no longer than it may, ended for good.

The measuring process only starts it and says in one line what came of it. So no tracker can block
a run, slow it by its network, or change its result. Knows no service and no configuration.
"""

import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import psutil

from mustdrop.tracking.service import Tracker, read

GRACE = 5.0  # seconds beyond its limit that a tracker gets to end itself
PATIENCE = 10.0  # seconds after which whoever waits is told what for
POLITE = 2.0  # seconds between the polite and the hard way of ending a process


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
            process.stdin.write(b".")  # its end alone would be missed where a fork holds it open
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
            process.wait(POLITE)
            if isinstance(stopped, KeyboardInterrupt):
                self._warn("not waited for")
                return
        self._tell()

    def _tell(self) -> None:
        assert self.tracker is not None
        told = read(self.folder)
        if not told.get("complete") or told.get("warning"):
            self._warn(told.get("warning") or "ended early, see track.log")
        elif told["mode"] == "online":
            self.say(f"{self.tracker.name}: {told['where']}")
        else:
            self.say(f"{self.tracker.name}: {told['mode']}, {told['where']}")

    def _warn(self, what: str) -> None:
        assert self.tracker is not None
        self.say(
            f"warning: {self.tracker.name}: {what}. The run's folder holds everything; "
            f"to upload it: python experiments/sync.py {self.folder}"
        )


def end(pid: int) -> None:
    """End a process and all below it, a service that left its session included."""
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        family = [*process.children(recursive=True), process]
        for member in family[:-1]:
            with suppress(psutil.NoSuchProcess):
                member.send_signal(signal.SIGTERM)
        _, left = psutil.wait_procs(family[:-1], timeout=POLITE)
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
        self.seconds, self.last_words, self.parent = seconds, last_words, os.getppid()
        self.over = threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        # the run says so on standard input, or dies without a word, kill -9 included
        while os.getppid() == self.parent:
            with suppress(OSError):
                if select.select([0], [], [], 1.0)[0]:
                    break
        self.over.set()
        time.sleep(self.seconds)
        self.last_words()
        end(os.getpid())
