"""Progress of a profile on standard error: a bar on a terminal, else a line now and then."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

SECONDS = 30.0  # between two lines, where there is no terminal


class ProfileProgress:
    """Counts the measurements of a profile and shows the present one."""

    def __init__(self, bar: Progress, total: int, terminal: bool) -> None:
        self.bar, self.total, self.terminal = bar, total, terminal
        self.done, self.written, self.prefix = 0, time.monotonic(), ""
        self.task = bar.add_task("starting", total=total)

    def step(self, label: str) -> None:
        """Begin the next measurement."""
        self.skip(1)
        self.show(label)

    def skip(self, steps: int) -> None:
        """Count measurements that were made before."""
        self.done += steps
        self.bar.advance(self.task, steps)

    def show(self, label: str) -> None:
        """Show the present work."""
        label = f"{self.prefix}{label}"
        self.bar.update(self.task, description=label)
        if not self.terminal and time.monotonic() - self.written >= SECONDS:
            self.written = time.monotonic()
            print(f"{self.done}/{self.total} {label}", file=sys.stderr, flush=True)


@contextmanager
def profile_progress(total: int) -> Iterator[ProfileProgress]:
    """Context that shows the progress of so many measurements."""
    console = Console(file=sys.stderr)
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=16), MofNCompleteColumn())
    with Progress(
        *columns, TimeRemainingColumn(), console=console, transient=True,
        disable=not console.is_terminal,
    ) as bar:  # fmt: skip
        yield ProfileProgress(bar, total, console.is_terminal)
