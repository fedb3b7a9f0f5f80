"""Progress bar of one run: samples done, rate, time left, running score."""

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
    """Progress bar of one run.

    Args:
        name: Label of the bar.
        total: Number of samples to answer.
        metric: Name of the score whose running mean is shown.
        done: Samples that an earlier process answered.
        console: Console to draw on; by default standard error.
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
        # Two refreshes a second at most, so that drawing takes no time from the run.
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=12),
            MofNCompleteColumn(),
            TextColumn("{task.fields[status]}"),
            # The current stream: it is redirected to a file while lmms-eval runs.
            console=console or Console(file=sys.stderr),
            refresh_per_second=2,
        )
        for sample in done:
            self._count(sample)
        self.total, self.before, self.start = total, self.n, time.monotonic()
        self.task = self.bar.add_task(name, total=total, completed=self.n, status=self._status())

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
        """Count one more sample."""
        self._count(sample)
        self.bar.update(self.task, advance=1, status=self._status())

    def _count(self, sample: Mapping[str, Any]) -> None:
        self.n += 1
        self.right += sample["scores"].get(self.metric, 0.0)
        self.entered += sample["counts"]["executed_average"]

    def _status(self) -> str:
        new = self.n - self.before
        if not new:
            return "starting"
        # Samples arrive in batches, so the rate is the average of this process so far.
        rate = new / (time.monotonic() - self.start)
        left = (self.total - self.n) / rate
        return f"{rate:.1f}/s · {left:.0f} s left · {self._so_far()}"

    def _so_far(self) -> str:
        return f"{self.metric} {self.right / self.n:.3f} · executed {self.entered / self.n:.1f}"
