"""One progress line: the present cell and step, and the time left."""

import time
from dataclasses import dataclass
from typing import TextIO

from experiments.gpu.runner import Position

SECONDS = 5.0  # between two lines, if the output is no terminal


@dataclass
class ProgressLine:
    """Line that is redrawn on a terminal; elsewhere a new line is written every few seconds.

    Attributes:
        stream: Stream to write to.
    """

    stream: TextIO
    width: int = 0
    cell: int = 0
    written: float = -SECONDS

    def show(self, position: Position) -> None:
        """Draw a position."""
        text = (
            f"[cell {position.cell}/{position.cells}, step {position.step}/{position.steps}] "
            f"{clock(position.elapsed)} used, {clock(position.left)} left · {position.name}"
        )
        if self.stream.isatty():
            self.stream.write("\r" + text.ljust(self.width))
            self.width = len(text)
        elif position.cell != self.cell or time.monotonic() - self.written >= SECONDS:
            self.stream.write(text + "\n")
            self.cell, self.written = position.cell, time.monotonic()
        self.stream.flush()

    def say(self, sentence: str) -> None:
        """Write a sentence on a line of its own."""
        self.clear()
        self.stream.write(sentence + "\n")
        self.stream.flush()

    def clear(self) -> None:
        """Remove the line that is drawn."""
        if self.width:
            self.stream.write("\r" + " " * self.width + "\r")
            self.width = 0


def clock(seconds: float) -> str:
    """Format minutes and seconds."""
    whole = max(0, int(seconds))
    return f"{whole // 60}:{whole % 60:02}"
