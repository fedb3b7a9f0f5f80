"""The tracker's process: started with a run, given a limited time to finish, then killed.

The process of the run only starts it and prints its outcome in one line. So no tracker can block a
run, slow it down by its network, or change its result. Knows no service and no configuration.
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

GRACE = 5.0  # seconds beyond its limit in which a tracker can end itself
PATIENCE = 10.0  # seconds of waiting after which a message says why
POLITE = 2.0  # seconds between SIGTERM and SIGKILL


class Watched:
    """The tracker's process as seen by the run: a context manager around the run.

    It never raises: an error of the tracker becomes one line of output.

    Args:
        tracker: Tracker that the process runs; None for no process.
        folder: Folder of the run.
        command: Command of the process, which ends when its standard input is closed.
        environment: Environment variables in addition to those of this process.
        say: Called with the line about the outcome.
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
        """Start the tracker on the folder, which must exist."""
        if self.tracker is None or not self.tracker.wanted:
            return
        try:
            (self.folder / "track.json").unlink(missing_ok=True)
            with (self.folder / "track.log").open("ab") as log:
                # a separate session: ^C reaches the run only, which then ends the tracker
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
            # do not wait if a user or a signal stopped the run: the tracker ends without it
            interrupted = error is not None and not isinstance(error, Exception)
            self._leave(self.process, wait=not interrupted)
        except Exception as failure:  # the tracker's boundary: it must not cost the run its result
            self._warn(f"{type(failure).__name__}: {failure}")

    def _leave(self, process: "subprocess.Popen[bytes]", wait: bool) -> None:
        assert self.tracker is not None and process.stdin is not None
        with suppress(OSError):
            process.stdin.write(b".")  # a fork may hold the pipe open, so closing it is not enough
            process.stdin.close()
        if not wait:
            return
        limit = self.tracker.finish_seconds + GRACE
        try:
            try:
                process.wait(min(PATIENCE, limit))
            except subprocess.TimeoutExpired:
                at_most = self.tracker.finish_seconds
                self.say(f"{self.tracker.name}: finishing, which takes at most {at_most:g} s")
                process.wait(limit)
        except (subprocess.TimeoutExpired, KeyboardInterrupt) as stopped:
            end(process.pid)
            process.wait(POLITE)
            if isinstance(stopped, KeyboardInterrupt):
                self._warn("the wait was interrupted")
                return
        self._report()

    def _report(self) -> None:
        assert self.tracker is not None
        result = read(self.folder)
        if not result.get("complete") or result.get("warning"):
            self._warn(result.get("warning") or "ended early, see track.log")
        elif result["mode"] == "online":
            self.say(f"{self.tracker.name}: {result['where']}")
        else:
            self.say(f"{self.tracker.name}: {result['mode']}, {result['where']}")

    def _warn(self, reason: str) -> None:
        assert self.tracker is not None
        self.say(
            f"warning: {self.tracker.name}: {reason}. The run's folder holds everything; "
            f"to upload it: mustdrop sync {self.folder}"
        )


def end(pid: int) -> None:
    """End a process and all its descendants, including a service that left its session."""
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
    """Ends the tracker's process, from inside it, some time after the end of the run.

    Args:
        seconds: Seconds that this process may take after the end of the run.
        before_kill: Called before the process is killed.
    """

    def __init__(self, seconds: float, before_kill: Callable[[], None]) -> None:
        self.seconds, self.before_kill, self.parent = seconds, before_kill, os.getppid()
        self.over = threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        # the run is over when it writes to standard input, or when its process is gone
        while os.getppid() == self.parent:
            with suppress(OSError):
                if select.select([0], [], [], 1.0)[0]:
                    break
        self.over.set()
        time.sleep(self.seconds)
        self.before_kill()
        end(os.getpid())
