"""What the page holds, as plain data: the summary, the arms, what each answered to each sample.

Words and numbers of the summary are those of :mod:`analysis.tables`. Knows nothing about HTML.
"""

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path
from typing import Any

from markupsafe import Markup
from rich.console import Console
from rich.progress import track

from analysis.figures.points import points
from analysis.records.cells import CONTROL_NAMES, RunResult, groups, load
from analysis.report.marks import look
from analysis.report.naming import Name, headline, ids, keys, lede, names, number
from analysis.report.overview import about, summary_table
from analysis.report.plot import plot
from analysis.report.tracing import Traces

STAGES = ("vision", "key_tokens", "prefill", "decode")


@dataclass(frozen=True, eq=False)
class PageData:
    """Everything that is shown.

    Attributes:
        title: What was compared.
        lede: How many runs, of which methods, on what.
        plots: An SVG of accuracy against executed tokens for each experiment, model and benchmark.
        told: Summary, arms and samples, to be written as JSON.
        traces: Pictures and fates.
    """

    title: str
    lede: str
    plots: list[tuple[str, Markup]]
    told: dict[str, Any]
    traces: Traces


def gather(root: Path | str, samples: int | None = None) -> PageData:
    """Read a results folder.

    Args:
        root: Such as ``outputs/demo``.
        samples: The first so many of each benchmark; None: all. The summary tells of all.

    Raises:
        FileNotFoundError: If the folder is missing.
        ValueError: See :func:`analysis.tables.summary.summary`; also if two runs of a benchmark
            asked different questions under one name.
    """
    if samples is not None and samples < 1:
        raise ValueError(f"samples must be 1 or more, got {samples}")
    cells = load(root)
    ran = [cell for cell in cells if cell.metric is not None]
    asked = _asked(ran)
    shown = _first(asked, samples)
    places = {name: place for place, name in enumerate(shown)}
    traces, texts, profiles = Traces(), Once(), Once()
    named = list(zip(ran, keys(ran), names(ran), strict=True))
    arms = [
        _arm(cell, key, name, places, traces, texts, profiles)
        for cell, key, name in track(named, "runs", console=Console(stderr=True), transient=True)
    ]
    told = {
        "summary": summary_table(cells),
        "about": about(ran, arms, len(shown), len(asked), traces),
        "samples": {
            "id": ids(shown),
            "benchmark": [name[0] for name in shown],
            "type": [asked[name][0] for name in shown],
            "question": [asked[name][1] for name in shown],
            "target": [asked[name][2] for name in shown],
        },
        "arms": arms,
        "texts": texts.values,
        "profiles": profiles.values,
        "words": traces.words,
    }
    return PageData(headline(ran), lede(ran, len(asked)), _plots(ran), told, traces)


def _plots(cells: Sequence[RunResult]) -> list[tuple[str, Markup]]:
    """A caption and a plot of each group of runs that may be compared."""
    drawn = []
    parts = groups([cell for cell in cells if cell.executed > 0])
    for name, members in parts.items():
        caption = " · ".join(name) if len(parts) > 1 else ""
        title = f"Accuracy against executed vision tokens: {' · '.join(name)}"
        drawn.append((caption, plot(points(members, "tokens"), str(members[0].metric), title)))
    return drawn


class Once:
    """Values, each kept once, by its place."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self._places: dict[Hashable, int] = {}

    def place(self, value: Any) -> int:
        """Where a value is kept; a list is told by what it holds."""
        key = tuple(value) if isinstance(value, list) else value
        if key not in self._places:
            self._places[key] = len(self.values)
            self.values.append(value)
        return self._places[key]


def _asked(cells: Sequence[RunResult]) -> dict[Name, tuple[str, str, str]]:
    """Type, question and target of every sample that some cell answered, in their order."""
    asked: dict[Name, tuple[str, str, str]] = {}
    for cell in cells:
        lines = cell.samples.to_dict("records")
        for (task, doc), line in zip(cell.samples.index, lines, strict=True):
            name = cell["benchmark"], task, doc
            kind = line["type"] if isinstance(line["type"], str) else ""
            here = kind, str(line["question"]), str(line["target"])
            if asked.setdefault(name, here) != here:
                raise ValueError(
                    f"sample {doc} of {task} was asked in two ways under the name {name[0]}: "
                    "give the folder of one experiment"
                )
    if not asked:
        raise ValueError("no cell has an answer: every budget lies below its method's floor")
    return dict(sorted(asked.items()))


def _first(names: Iterable[Name], limit: int | None) -> list[Name]:
    """The first so many of each benchmark."""
    out = []
    for _, same in groupby(names, key=lambda name: name[0]):
        out += list(islice(same, limit))
    return out


def _arm(
    cell: RunResult,
    key: str,
    name: str,
    places: dict[Name, int],
    traces: Traces,
    texts: Once,
    profiles: Once,
) -> dict[str, Any]:
    """One run: what it answered, by place of the sample; None where it was not asked."""
    columns: dict[str, list[Any]] = {
        column: [None] * len(places)
        for column in ("score", "answer", "tokens", "resident", *CONTROL_NAMES.values())
    }
    traced = {}
    for (task, doc), row in zip(cell.samples.index, cell.samples.to_dict("records"), strict=True):
        place = places.get((cell["benchmark"], task, doc))
        if place is None:
            continue
        columns["score"][place] = number(row["score"])
        columns["answer"][place] = texts.place(str(row["answer"]))
        columns["tokens"][place] = profiles.place(row["vision_tokens"])
        columns["resident"][place] = profiles.place(row["resident_tokens"])
        for beside in CONTROL_NAMES.values():
            columns[beside][place] = number(row[beside])
        found = traces.add(cell["folder"], int(doc))
        if found is not None:
            traced[place] = found
    beside = {kind: columns.pop(kind) for kind in CONTROL_NAMES.values()}
    config = cell["config"]
    return {
        "key": key,
        "name": name,
        "look": look(cell["method"]),
        "benchmark": cell["benchmark"],
        "metric": cell.metric,
        "stages": {stage: _class(config[stage]) for stage in STAGES if config.get(stage)},
        **columns,
        "beside": {kind: told for kind, told in beside.items() if any(s is not None for s in told)},
        "traces": traced,
    }


def _class(stage: dict[str, Any]) -> str:
    return str(stage.get("_target_", "")).rpartition(".")[2]
