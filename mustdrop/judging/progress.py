"""Progress of a judge on standard error: a bar on a terminal, else a line now and then."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from mustdrop.judging.verdicts import Unjudged

SECONDS = 30.0  # between two lines, where there is no terminal


class JudgingProgress:
    """Counts answers: those done, the rate, the time left, those without a verdict."""

    def __init__(self, bar: Progress, name: str, total: int, terminal: bool) -> None:
        self.bar, self.total, self.terminal = bar, total, terminal
        self.n, self.unjudged = 0, 0
        self.start = self.written = time.monotonic()
        self.task = bar.add_task(name, total=total, status="starting")

    def add(self, fault: Unjudged | None) -> None:
        """Count one answer, with its fault if it has no verdict."""
        self.n, self.unjudged = self.n + 1, self.unjudged + (fault is not None)
        self.bar.update(self.task, advance=1, status=self.status())
        if not self.terminal and time.monotonic() - self.written >= SECONDS:
            self.written = time.monotonic()
            print(f"{self.n}/{self.total} {self.status()}", file=sys.stderr, flush=True)

    def status(self) -> str:
        """Rate, time left and number of answers without a verdict."""
        rate = self.n / max(time.monotonic() - self.start, 1e-9)
        text = f"{rate:.1f}/s · {(self.total - self.n) / rate:.0f} s left"
        return f"{text} · {self.unjudged} unjudged" if self.unjudged else text


@contextmanager
def judging_progress(name: str, total: int) -> Iterator[JudgingProgress]:
    """Context that shows the progress of a pass over so many answers."""
    console = Console(file=sys.stderr)
    columns = (
        TextColumn("{task.description}"), BarColumn(bar_width=12), MofNCompleteColumn(),
        TextColumn("{task.fields[status]}"),
    )  # fmt: skip
    with Progress(
        *columns, console=console, refresh_per_second=2, disable=not console.is_terminal
    ) as bar:
        yield JudgingProgress(bar, name, total, console.is_terminal)
