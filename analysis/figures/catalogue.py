"""Choose the figures that the runs of a folder allow, and the runs and samples of each figure.

An offer is a file name and a function that draws the figure. A figure that cannot be drawn raises a
ValueError with the reason and the remedy. Knows nothing about how figures look.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial

from matplotlib.figure import Figure

from analysis.figures import (
    attention,
    decode_attention,
    film,
    frames,
    layers,
    overlays,
    stages,
    survival,
    sweep,
    tradeoff,
)
from analysis.figures.request import FigureRequest, Visual, rank, visual
from analysis.figures.traced import Traced, named, traced

Offer = tuple[str, Callable[[], Figure]]
ARMS = 4  # methods in a figure of position bias


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
        dropped.sort(key=lambda cell: (*rank(cell, request.methods), cell.executed))
        for cell in dropped[:1]:
            stem = _stem(request, "stages", cell["method"], cell["budget"], "mean")
            yield stem, partial(stages.draw, cell)
        return
    for sample in shown:
        yield _sample_stem(request, "stages", sample), partial(stages.draw, sample)


def offer_overlays(request: FigureRequest) -> Iterator[Offer]:
    """Dropped patches on the picture of each chosen sample."""
    for sample in request.shown("image"):
        draw = partial(overlays.of_trace, sample)
        yield _sample_stem(request, "overlays", sample), partial(_pictured, request, sample, draw)


def offer_film(request: FigureRequest) -> Iterator[Offer]:
    """Film strip of each video of each chosen sample."""
    for sample in request.shown("video"):
        stem = _sample_stem(request, "film", sample)
        for number in range(len(sample.trace.ledger.videos)):
            draw = partial(film.of_trace, sample, number)
            name = f"{stem}_video{number + 1}" if number else stem
            yield name, partial(_pictured, request, sample, draw)


def _pictured(request: FigureRequest, sample: Traced, draw: Callable[[], Figure]) -> Figure:
    """Draw a figure that needs the pictures of a trace."""
    if not sample.trace.pictures:
        hint = request.hint([sample.cell["method"]])
        raise ValueError(f"the trace of {sample.arm} has no picture: {hint} writes it")
    return draw()


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
    """Position bias of the runs at one budget, over all traced samples without videos."""
    samples = _samples_of_arms(request, "image")
    yield _stem(request, "survival", samples[0][0].cell["budget"]), partial(survival.draw, samples)


def offer_frames(request: FigureRequest) -> Iterator[Offer]:
    """Bias of the runs at one budget by frame and position, over all traced videos."""
    samples = _samples_of_arms(request, "video")
    yield _stem(request, "frames", samples[0][0].cell["budget"]), partial(frames.draw, samples)


def _samples_of_arms(request: FigureRequest, kind: Visual) -> list[list[Traced]]:
    """All traced samples of a kind, of the runs at the budget with the most traced runs."""
    arms = request.arms(together=True, kind=kind)[:ARMS]
    return [[sample for sample in traced(cell) if visual(sample) == kind] for cell, _ in arms]


FIGURES: Mapping[str, Callable[[FigureRequest], Iterator[Offer]]] = {
    "stages": offer_stages,
    "overlays": offer_overlays,
    "attention": offer_attention,
    "gaze": offer_decode_attention,
    "layers": offer_layers,
    "tradeoff": offer_tradeoff,
    "sweep": offer_sweep,
    "survival": offer_survival,
    "film": offer_film,
    "frames": offer_frames,
}
