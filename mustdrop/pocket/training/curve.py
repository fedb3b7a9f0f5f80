"""Training curve: a CSV file that gets a line every few steps and survives a restart."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import perf_counter

from mustdrop.pocket.evaluation import Score
from mustdrop.pocket.questions import QUESTION_TYPES
from mustdrop.pocket.training.staged import Progress

COLUMNS = ("stage", "step", "done", "seconds", "loss", "right")


class Curve:
    """CSV table of the loss, the share of right answers, and validation scores.

    Loss and share are means over the steps since the previous line.

    Args:
        path: File of the table; lines beyond ``done`` are removed, as those steps are repeated.
        done: Number of steps in the saved state.
        every: Number of steps between two lines.
        types: Question types, one column each for the validation scores.
    """

    def __init__(
        self, path: Path, done: int, every: int = 100, types: Sequence[str] = QUESTION_TYPES
    ):
        self.path, self.every = path, every
        self.columns = (*COLUMNS, *types)
        lines = list(csv.DictReader(path.read_text().splitlines())) if path.is_file() else []
        lines = [line for line in lines if int(line["done"]) <= done]
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, self.columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows(lines)
        self._earlier_seconds = float(lines[-1]["seconds"]) if lines else 0.0
        self._start = perf_counter()
        self._recent: list[Progress] = []

    def due(self, progress: Progress) -> bool:
        """Record a step and return whether a line is due."""
        self._recent.append(progress)
        return progress.done % self.every == 0

    def write(self, validation: Mapping[str, Score]) -> None:
        """Append a line with the means over the steps since the previous line."""
        last, n = self._recent[-1], len(self._recent)
        right = [progress.right for progress in self._recent if progress.right is not None]
        line = {
            "stage": last.stage,
            "step": last.step,
            "done": last.done,
            "seconds": round(self._earlier_seconds + perf_counter() - self._start, 1),
            "loss": round(sum(progress.loss for progress in self._recent) / n, 4),
            "right": round(sum(right) / len(right), 4) if right else None,
        }
        line |= {name: round(score.share, 4) for name, score in validation.items()}
        with self.path.open("a", newline="") as file:
            csv.DictWriter(file, self.columns, lineterminator="\n").writerow(line)
        self._recent.clear()
