"""A line that moves: how far a run is, how fast, how long still, and how well it answers so far."""

import sys
import time
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
)


class RunProgress:
    """The progress of one run.

    Args:
        name: What runs.
        total: Samples wanted.
        metric: The score that is told; its mean so far.
        done: Samples that an earlier process left.
        console: Where to draw; by default the terminal's error stream.
    """

    def __init__(
        self,
        name: str,
        total: int,
        metric: str,
        done: Iterable[Mapping[str, Any]] = (),
        console: Console | None = None,
    ) -> None:
        self.metric, self.right, self.entered, self.n = metric, 0.0, 0.0, 0
        # drawn twice a second at most: drawing must not cost samples
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=12),
            MofNCompleteColumn(),
            TextColumn("{task.fields[told]}"),
            # this very stream: while lmms-eval works, its own messages are led elsewhere
            console=console or Console(file=sys.stderr),
            refresh_per_second=2,
        )
        for sample in done:
            self._count(sample)
        self.total, self.before, self.start = total, self.n, time.monotonic()
        self.task = self.bar.add_task(name, total=total, completed=self.n, told=self._told())

    def __enter__(self) -> "RunProgress":
        self.bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.bar.stop()

    def add(self, sample: Mapping[str, Any]) -> None:
        """One more sample."""
        self._count(sample)
        self.bar.update(self.task, advance=1, told=self._told())

    def _count(self, sample: Mapping[str, Any]) -> None:
        self.n += 1
        self.right += sample["scores"].get(self.metric, 0.0)
        self.entered += sample["counts"]["executed_average"]

    def _told(self) -> str:
        new = self.n - self.before
        if not new:
            return "starting"
        # samples come a batch at a time, so the rate is that of this process so far
        rate = new / (time.monotonic() - self.start)
        left = (self.total - self.n) / rate
        return f"{rate:.1f}/s · {left:.0f} s left · {self._so_far()}"

    def _so_far(self) -> str:
        return f"{self.metric} {self.right / self.n:.3f} · executed {self.entered / self.n:.1f}"
