"""Choose the figures that the runs of a folder allow, and the runs and samples of each figure.

An offer is a file name and a function that draws the figure. A figure that cannot be drawn raises a
ValueError with the reason and the remedy. Knows nothing about how figures look.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from matplotlib.figure import Figure

from analysis.figures import (
    attention,
    decode_attention,
    layers,
    overlays,
    stages,
    survival,
    sweep,
    tradeoff,
)
from analysis.figures.points import Cost
from analysis.figures.traced import Traced, named, traced
from analysis.records.cells import RunResult, groups

Offer = tuple[str, Callable[[], Figure]]
FIRST = ("mustdrop", "fastv", "random")  # preferred methods if none is given
ARMS = 4  # methods in a figure of position bias


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

    def arms(self, together: bool = False) -> list[tuple[RunResult, Traced]]:
        """Find the runs at one budget that have a requested trace, with the first trace of each.

        Args:
            together: Whether to use the budget with the most traced runs, not the fewest tokens.

        Raises:
            ValueError: If no run has such a trace.
        """
        arms = []
        for cell in self.chosen():
            if self.budget in (None, cell["budget"]) and cell["method"] != "vanilla":
                first = next(traced(cell, self.docs), None)
                if first is not None and not cell.image:
                    arms.append((cell, first))
        if not arms:
            raise ValueError(f"no trace: {self.hint(self.methods or FIRST[:1])} makes them")
        shared = Counter(cell["budget"] for cell, _ in arms)
        chosen = min(
            (cell for cell, _ in arms),
            key=lambda cell: (-shared[cell["budget"]] if together else 0, cell.executed),
        )["budget"]
        arms = [(cell, first) for cell, first in arms if cell["budget"] == chosen]
        return sorted(arms, key=lambda pair: _rank(pair[0], self.methods))

    def shown(self) -> list[Traced]:
        """Samples for figures of one sample; by default the first sample of one method."""
        arms = self.arms() if self.methods else self.arms()[:1]
        return [
            sample
            for cell, first in arms
            for sample in (traced(cell, self.docs) if self.docs else [first])
        ]

    def hint(self, methods: Sequence[str]) -> str:
        """Command that writes the traces."""
        return f"mustdrop trace {self.root} --methods {','.join(methods)}"


def _rank(cell: RunResult, methods: Sequence[str]) -> tuple[int, str]:
    order = list(methods or FIRST)
    name = cell["method"]
    return order.index(name) if name in order else len(order), name


def _stem(request: FigureRequest, figure: str, *parts: object) -> str:
    text = "_".join(str(part) for part in (figure, *parts) if part != "")
    return request.prefix + re.sub(r"[^\w.-]+", "-", text)


def _sample_stem(request: FigureRequest, figure: str, sample: Traced) -> str:
    cell = sample.cell
    return _stem(request, figure, cell["method"], cell["budget"], sample.doc_id)


def offer_stages(request: FigureRequest) -> Iterator[Offer]:
    """Stages of each chosen sample; without traces, the mean of one run."""
    try:
        shown = request.shown()
    except ValueError:  # no trace: draw the mean over the samples of a run
        ran = [cell for cell in request.chosen() if cell.metric is not None]
        dropped = [cell for cell in ran if cell["method"] != "vanilla"] or ran
        dropped.sort(key=lambda cell: (*_rank(cell, request.methods), cell.executed))
        for cell in dropped[:1]:
            stem = _stem(request, "stages", cell["method"], cell["budget"], "mean")
            yield stem, partial(stages.draw, cell)
        return
    for sample in shown:
        yield _sample_stem(request, "stages", sample), partial(stages.draw, sample)


def offer_overlays(request: FigureRequest) -> Iterator[Offer]:
    """Dropped patches on the picture of each chosen sample."""
    for sample in request.shown():
        yield _sample_stem(request, "overlays", sample), partial(_draw_overlays, request, sample)


def _draw_overlays(request: FigureRequest, sample: Traced) -> Figure:
    if not sample.trace.pictures:
        hint = request.hint([sample.cell["method"]])
        raise ValueError(f"the trace of {sample.arm} has no picture: {hint} writes it")
    return overlays.of_trace(sample)


def offer_attention(request: FigureRequest) -> Iterator[Offer]:
    """Attention that the filter read, of each chosen sample."""
    for sample in request.shown():
        yield _sample_stem(request, "attention", sample), partial(attention.draw, sample)


def offer_decode_attention(request: FigureRequest) -> Iterator[Offer]:
    """Attention while decoding, of vanilla and the chosen runs on the same samples."""
    plain = [cell for cell in request.cells if cell["method"] == "vanilla" and not cell.image]
    arms = request.arms() if request.methods else request.arms()[:1]
    docs = request.docs
    if not docs:
        samples = list(traced(arms[0][0]))
        docs = [sample.doc_id for sample in samples if sample.trace.decode_attention][:1]
    for doc in docs:
        vanilla = next((sample for cell in plain for sample in traced(cell, [doc])), None)
        if vanilla is None:
            raise ValueError(
                f"no trace of the vanilla run for sample {doc}: "
                f"{request.hint(['vanilla'])} --samples {doc} makes it"
            )
        others = [sample for cell, _ in arms for sample in traced(cell, [doc])]
        stem = _stem(request, "gaze", *(sample.cell["method"] for sample in others), doc)
        yield stem, partial(decode_attention.draw, [vanilla, *others])
    if not docs:
        raise ValueError(f"no trace of {named(arms[0][0])} has a decoded token")


def offer_layers(request: FigureRequest) -> Iterator[Offer]:
    """Vision tokens per layer."""
    yield _stem(request, "layers"), partial(layers.draw, request.chosen())


def offer_tradeoff(request: FigureRequest) -> Iterator[Offer]:
    """Accuracy against each cost."""
    for cost in request.against:
        yield _stem(request, "tradeoff", cost), partial(tradeoff.draw, request.chosen(), cost)


def offer_sweep(request: FigureRequest) -> Iterator[Offer]:
    """Accuracy maps of each method with two settings swept."""
    sweeps = sweep.sweeps(request.chosen())
    if not sweeps:
        raise ValueError(
            "no method ran with two settings swept, as experiment=sweep_thresholds does"
        )
    for swept in sweeps:
        first = swept.cells[0]
        stem = _stem(request, "sweep", first["method"], first["budget"], first.image or "")
        yield stem, partial(sweep.draw, swept)


def offer_survival(request: FigureRequest) -> Iterator[Offer]:
    """Position bias of the runs at one budget, over all traced samples."""
    samples = [list(traced(cell)) for cell, _ in request.arms(together=True)[:ARMS]]
    yield _stem(request, "survival", samples[0][0].cell["budget"]), partial(survival.draw, samples)


FIGURES: Mapping[str, Callable[[FigureRequest], Iterator[Offer]]] = {
    "stages": offer_stages,
    "overlays": offer_overlays,
    "attention": offer_attention,
    "gaze": offer_decode_attention,
    "layers": offer_layers,
    "tradeoff": offer_tradeoff,
    "sweep": offer_sweep,
    "survival": offer_survival,
}


def figure_requests(root: str, cells: Sequence[RunResult]) -> list[FigureRequest]:
    """One request per experiment, model and benchmark of the cells."""
    parts = groups(cells)
    return [
        FigureRequest(root, members, prefix="_".join(name) + "_" if len(parts) > 1 else "")
        for name, members in parts.items()
    ]
