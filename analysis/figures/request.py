"""Runs and samples of a results folder that figures are drawn of, as the user chose them.

Knows nothing about single figures.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from analysis.figures.points import Cost
from analysis.figures.traced import Traced, traced
from analysis.records.cells import RunResult, groups

FIRST = ("mustdrop", "fastv", "random")  # preferred methods if none is given
Visual = Literal["image", "video"]
# Reason why there is no sample of a kind.
MISSING = {
    "image": "every traced sample shows a video: film and frames are its figures",
    "video": "no traced sample shows a video",
}


@dataclass(frozen=True, eq=False)
class FigureRequest:
    """Runs and samples to draw figures of.

    Attributes:
        root: Results folder, as the user wrote it.
        cells: Runs of one experiment, model and benchmark.
        docs: Ids of the samples; by default the first traced one.
        methods: Names of the methods; by default all, and one for figures of single samples.
        budget: Budget for figures of traces; by default the one with the fewest tokens, and for
            position bias the one with the most traced runs.
        against: Costs to plot accuracy against.
        prefix: Prefix of the file names, empty with one experiment.
    """

    root: str
    cells: Sequence[RunResult]
    docs: Sequence[int] = ()
    methods: Sequence[str] = ()
    budget: str | None = None
    against: Sequence[Cost] = ("tokens", "flops", "latency")
    prefix: str = ""

    def chosen(self) -> list[RunResult]:
        """Select the runs of the requested methods, and vanilla.

        Raises:
            ValueError: If a method has no run.
        """
        known = {cell["method"] for cell in self.cells}
        for name in self.methods:
            if name not in known:
                raise ValueError(f"no run of {name}: expected one of {', '.join(sorted(known))}")
        wanted = {*self.methods, "vanilla"} if self.methods else known
        return [cell for cell in self.cells if cell["method"] in wanted]

    def arms(
        self, together: bool = False, kind: Visual | None = None
    ) -> list[tuple[RunResult, Traced]]:
        """Find the runs at one budget that have a requested trace, with the first trace of each.

        Args:
            together: Whether to use the budget with the most traced runs, not the fewest tokens.
            kind: Kind of sample to find, see :func:`visual`; None: any.

        Raises:
            ValueError: If no run has such a trace.
        """
        arms, others = [], False
        for cell in self.chosen():
            if self.budget in (None, cell["budget"]) and cell["method"] != "vanilla":
                samples = traced(cell, self.docs) if not cell.image else iter(())
                for first in samples:
                    if kind in (None, visual(first)):
                        arms.append((cell, first))
                        break
                    others = True
        if not arms and others:
            raise ValueError(MISSING[str(kind)])
        if not arms:
            raise ValueError(f"no trace: {self.hint(self.methods or FIRST[:1])} makes them")
        shared = Counter(cell["budget"] for cell, _ in arms)
        chosen = min(
            (cell for cell, _ in arms),
            key=lambda cell: (-shared[cell["budget"]] if together else 0, cell.executed),
        )["budget"]
        arms = [(cell, first) for cell, first in arms if cell["budget"] == chosen]
        return sorted(arms, key=lambda pair: rank(pair[0], self.methods))

    def shown(self, kind: Visual | None = None) -> list[Traced]:
        """Samples for figures of one sample; by default the first sample of one method.

        Args:
            kind: Kind of the samples, see :func:`visual`; None: any.
        """
        arms = self.arms(kind=kind)
        return [
            sample
            for cell, first in (arms if self.methods else arms[:1])
            for sample in (traced(cell, self.docs) if self.docs else [first])
            if kind in (None, visual(sample))
        ]

    def hint(self, methods: Sequence[str]) -> str:
        """Command that writes the traces."""
        return f"mustdrop trace {self.root} --methods {','.join(methods)}"


def visual(sample: Traced) -> Visual:
    """Whether the prompt of a sample shows a video, or images alone."""
    return "video" if sample.trace.ledger.videos else "image"


def rank(cell: RunResult, methods: Sequence[str]) -> tuple[int, str]:
    """Sort key of a run: preferred methods first."""
    order = list(methods or FIRST)
    name = cell["method"]
    return order.index(name) if name in order else len(order), name


def figure_requests(root: str, cells: Sequence[RunResult]) -> list[FigureRequest]:
    """One request per experiment, model and benchmark of the cells."""
    parts = groups(cells)
    return [
        FigureRequest(root, members, prefix="_".join(name) + "_" if len(parts) > 1 else "")
        for name, members in parts.items()
    ]
