"""Which figures the runs of a folder allow, and which runs and samples each is drawn of.

A figure is offered as a name and a function that draws it; whatever cannot be drawn is a ValueError
that says why, and what would help. Knows nothing about how figures look.
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
FIRST = ("mustdrop", "fastv", "random")  # whom to show where nobody was named
ARMS = 4  # methods in a figure of position bias


@dataclass(frozen=True, eq=False)
class FigureRequest:
    """What to draw of.

    Attributes:
        root: The folder, as it was named.
        cells: Runs of one experiment, model and benchmark.
        docs: Samples; by default the first that was traced.
        methods: Only these; by default all, and for single samples one.
        budget: For single samples; by default the one of fewest tokens;
            of position bias that with the most traced runs.
        against: Costs to hold accuracy against.
        prefix: Of the names of files, where there are several experiments.
    """

    root: str
    cells: Sequence[RunResult]
    docs: Sequence[int] = ()
    methods: Sequence[str] = ()
    budget: str | None = None
    against: Sequence[Cost] = ("tokens", "flops", "latency")
    prefix: str = ""

    def chosen(self) -> list[RunResult]:
        """The runs of these methods, and vanilla.

        Raises:
            ValueError: If a method has no run.
        """
        known = {cell["method"] for cell in self.cells}
        for name in self.methods:
            if name not in known:
                raise ValueError(f"no run of {name}: there are {', '.join(sorted(known))}")
        wanted = {*self.methods, "vanilla"} if self.methods else known
        return [cell for cell in self.cells if cell["method"] in wanted]

    def arms(self, together: bool = False) -> list[tuple[RunResult, Traced]]:
        """Runs with a trace of what was asked, at one budget, and the first trace of each.

        Args:
            together: Take the budget at which most runs were traced, not that of fewest tokens.

        Raises:
            ValueError: If there is none.
        """
        found = []
        for cell in self.chosen():
            if self.budget in (None, cell["budget"]) and cell["method"] != "vanilla":
                first = next(traced(cell, self.docs), None)
                if first is not None and not cell.image:
                    found.append((cell, first))
        if not found:
            raise ValueError(f"no trace: {self.hint(self.methods or FIRST[:1])} makes them")
        shared = Counter(cell["budget"] for cell, _ in found)
        chosen = min(
            (cell for cell, _ in found),
            key=lambda cell: (-shared[cell["budget"]] if together else 0, cell.executed),
        )["budget"]
        found = [(cell, one) for cell, one in found if cell["budget"] == chosen]
        return sorted(found, key=lambda pair: _rank(pair[0], self.methods))

    def shown(self) -> list[Traced]:
        """The samples to draw one by one: those asked for, or the first; of one method or those."""
        arms = self.arms() if self.methods else self.arms()[:1]
        return [
            one
            for cell, first in arms
            for one in (traced(cell, self.docs) if self.docs else [first])
        ]

    def hint(self, methods: Sequence[str]) -> str:
        """The command that traces."""
        return f"python experiments/trace.py {self.root} --methods {','.join(methods)}"


def _rank(cell: RunResult, methods: Sequence[str]) -> tuple[int, str]:
    order = list(methods or FIRST)
    name = cell["method"]
    return order.index(name) if name in order else len(order), name


def _stem(asked: FigureRequest, figure: str, *parts: object) -> str:
    text = "_".join(str(part) for part in (figure, *parts) if part != "")
    return asked.prefix + re.sub(r"[^\w.-]+", "-", text)


def _of(asked: FigureRequest, figure: str, one: Traced) -> str:
    return _stem(asked, figure, one.cell["method"], one.cell["budget"], one.doc_id)


def offer_stages(asked: FigureRequest) -> Iterator[Offer]:
    """The stages of each chosen sample; without traces, of a run's mean."""
    try:
        shown = asked.shown()
    except ValueError:  # no trace: the mean of a run's samples has the same stages
        ran = [cell for cell in asked.chosen() if cell.metric is not None]
        dropped = [cell for cell in ran if cell["method"] != "vanilla"] or ran
        dropped.sort(key=lambda cell: (*_rank(cell, asked.methods), cell.executed))
        for cell in dropped[:1]:
            stem = _stem(asked, "stages", cell["method"], cell["budget"], "mean")
            yield stem, partial(stages.draw, cell)
        return
    for one in shown:
        yield _of(asked, "stages", one), partial(stages.draw, one)


def offer_overlays(asked: FigureRequest) -> Iterator[Offer]:
    """What was dropped of each chosen sample's picture."""
    for one in asked.shown():
        yield _of(asked, "overlays", one), partial(_pictured, asked, one)


def _pictured(asked: FigureRequest, one: Traced) -> Figure:
    if not one.trace.pictures:
        hint = asked.hint([one.cell["method"]])
        raise ValueError(f"the trace of {one.arm} holds no picture: {hint} writes it")
    return overlays.of_trace(one)


def offer_attention(asked: FigureRequest) -> Iterator[Offer]:
    """What the filter saw of each chosen sample."""
    for one in asked.shown():
        yield _of(asked, "attention", one), partial(attention.draw, one)


def offer_gaze(asked: FigureRequest) -> Iterator[Offer]:
    """Decoding of vanilla beside the chosen runs, of the same samples."""
    plain = [cell for cell in asked.cells if cell["method"] == "vanilla" and not cell.image]
    arms = asked.arms() if asked.methods else asked.arms()[:1]
    known = (
        asked.docs or [one.doc_id for one in traced(arms[0][0]) if one.trace.decode_attention][:1]
    )
    for doc in known:
        vanilla = next((one for cell in plain for one in traced(cell, [doc])), None)
        if vanilla is None:
            raise ValueError(
                f"no trace of the vanilla run for sample {doc}: "
                f"{asked.hint(['vanilla'])} --samples {doc} makes it"
            )
        others = [one for cell, _ in arms for one in traced(cell, [doc])]
        stem = _stem(asked, "gaze", *(one.cell["method"] for one in others), doc)
        yield stem, partial(decode_attention.draw, [vanilla, *others])
    if not known:
        raise ValueError(f"no trace of {named(arms[0][0])} has a decoded token")


def offer_layers(asked: FigureRequest) -> Iterator[Offer]:
    """Tokens layer by layer."""
    yield _stem(asked, "layers"), partial(layers.draw, asked.chosen())


def offer_tradeoff(asked: FigureRequest) -> Iterator[Offer]:
    """Accuracy against each cost."""
    for cost in asked.against:
        yield _stem(asked, "tradeoff", cost), partial(tradeoff.draw, asked.chosen(), cost)


def offer_sweep(asked: FigureRequest) -> Iterator[Offer]:
    """The maps of each method with two settings swept."""
    found = sweep.sweeps(asked.chosen())
    if not found:
        raise ValueError(
            "no method ran with two settings swept, as experiment=sweep_thresholds does"
        )
    for swept in found:
        first = swept.cells[0]
        stem = _stem(asked, "sweep", first["method"], first["budget"], first.image or "")
        yield stem, partial(sweep.draw, swept)


def offer_survival(asked: FigureRequest) -> Iterator[Offer]:
    """Position bias of the runs at one budget, over all their traced samples."""
    samples = [list(traced(cell)) for cell, _ in asked.arms(together=True)[:ARMS]]
    yield _stem(asked, "survival", samples[0][0].cell["budget"]), partial(survival.draw, samples)


FIGURES: Mapping[str, Callable[[FigureRequest], Iterator[Offer]]] = {
    "stages": offer_stages,
    "overlays": offer_overlays,
    "attention": offer_attention,
    "gaze": offer_gaze,
    "layers": offer_layers,
    "tradeoff": offer_tradeoff,
    "sweep": offer_sweep,
    "survival": offer_survival,
}


def asked_of(root: str, cells: Sequence[RunResult]) -> list[FigureRequest]:
    """One for each experiment, model and benchmark among the cells."""
    parts = groups(cells)
    return [
        FigureRequest(root, members, prefix="_".join(name) + "_" if len(parts) > 1 else "")
        for name, members in parts.items()
    ]
