"""The training's curve: a line of CSV every so often, cut back when a stopped run goes on."""

import csv
from collections.abc import Mapping
from pathlib import Path
from time import perf_counter

from mustdrop.pocket.evaluation import Score
from mustdrop.pocket.questions import QUESTION_TYPES
from mustdrop.pocket.training.trainer import Progress

COLUMNS: tuple[str, ...] = ("stage", "step", "done", "seconds", "loss", "right", *QUESTION_TYPES)


class Curve:
    """A growing table: loss and share right, both means since the line before, and validation.

    Args:
        path: The file; lines beyond ``done`` are cut, for those steps are made again.
        done: Steps that the state on disk knows of.
        every: Steps between two lines.
    """

    def __init__(self, path: Path, done: int, every: int = 100):
        self.path, self.every = path, every
        old = list(csv.DictReader(path.read_text().splitlines())) if path.is_file() else []
        old = [line for line in old if int(line["done"]) <= done]
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="") as file:
            lines = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            lines.writeheader()
            lines.writerows(old)
        self._before = float(old[-1]["seconds"]) if old else 0.0
        self._began = perf_counter()
        self._recent: list[Progress] = []

    def due(self, progress: Progress) -> bool:
        """Take note of a step; whether it ends a line."""
        self._recent.append(progress)
        return progress.done % self.every == 0

    def write(self, validation: Mapping[str, Score]) -> None:
        """Append a line over the steps since the last one."""
        last, n = self._recent[-1], len(self._recent)
        right = [one.right for one in self._recent if one.right is not None]
        line = {
            "stage": last.stage,
            "step": last.step,
            "done": last.done,
            "seconds": round(self._before + perf_counter() - self._began, 1),
            "loss": round(sum(one.loss for one in self._recent) / n, 4),
            "right": round(sum(right) / len(right), 4) if right else None,
        }
        line |= {name: round(score.share, 4) for name, score in validation.items()}
        with self.path.open("a", newline="") as file:
            csv.DictWriter(file, COLUMNS, lineterminator="\n").writerow(line)
        self._recent.clear()
