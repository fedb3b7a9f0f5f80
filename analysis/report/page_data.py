"""Content of the page as plain data: the summary, the arms, and the answers to each sample.

Texts and numbers of the summary are those of :mod:`analysis.tables`. Knows nothing about HTML.
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
from analysis.report.naming import (
    Name,
    headline,
    introduction,
    number,
    run_keys,
    run_names,
    sample_ids,
)
from analysis.report.overview import about, summary_table
from analysis.report.plot import plot
from analysis.report.tracing import Traces

STAGES = ("vision", "key_tokens", "prefill", "decode")


@dataclass(frozen=True, eq=False)
class PageData:
    """Everything that the page shows.

    Attributes:
        title: Methods and benchmarks that were compared.
        introduction: First lines of the page: number of runs, methods, budgets, benchmarks.
        plots: Caption and SVG of accuracy against executed tokens, for each experiment, model and
            benchmark.
        content: Summary, arms and samples, to be written as JSON.
        traces: Pictures and fates of patches.
    """

    title: str
    introduction: str
    plots: list[tuple[str, Markup]]
    content: dict[str, Any]
    traces: Traces


def gather(root: Path | str, samples: int | None = None) -> PageData:
    """Read the content of the page from a results folder.

    Args:
        root: Results folder, such as ``outputs/demo``.
        samples: Number of samples of each benchmark, from the first; None: all. The summary always
            covers all samples.

    Raises:
        FileNotFoundError: If the folder is missing.
        ValueError: See :func:`analysis.tables.summary.summary`; also if two runs of a benchmark
            have different questions under one name.
    """
    if samples is not None and samples < 1:
        raise ValueError(f"samples must be 1 or more, got {samples}")
    return gather_runs(load(root), samples)


def gather_runs(cells: Sequence[RunResult], samples: int | None = None) -> PageData:
    """Content of the page about runs that are already loaded, as :func:`gather`.

    Raises:
        ValueError: See :func:`gather`.
    """
    ran = [cell for cell in cells if cell.metric is not None]
    questions = _questions(ran)
    shown = _first(questions, samples)
    indices = {name: index for index, name in enumerate(shown)}
    traces, texts, profiles = Traces(), Once(), Once()
    named = list(zip(ran, run_keys(ran), run_names(ran), strict=True))
    arms = [
        _arm(cell, key, name, indices, traces, texts, profiles)
        for cell, key, name in track(named, "runs", console=Console(stderr=True), transient=True)
    ]
    content = {
        "summary": summary_table(cells),
        "about": about(ran, arms, len(shown), len(questions), traces),
        "samples": {
            "id": sample_ids(shown),
            "benchmark": [name[0] for name in shown],
            "type": [questions[name][0] for name in shown],
            "question": [questions[name][1] for name in shown],
            "target": [questions[name][2] for name in shown],
        },
        "arms": arms,
        "texts": texts.values,
        "profiles": profiles.values,
        "words": traces.words,
    }
    opening = introduction(ran, len(questions))
    return PageData(headline(ran), opening, _plots(ran), content, traces)


def _plots(cells: Sequence[RunResult]) -> list[tuple[str, Markup]]:
    """Caption and plot of each group of comparable runs."""
    drawn = []
    parts = groups([cell for cell in cells if cell.executed > 0])
    for name, members in parts.items():
        caption = " · ".join(name) if len(parts) > 1 else ""
        title = f"Accuracy against executed vision tokens: {' · '.join(name)}"
        drawn.append((caption, plot(points(members, "tokens"), str(members[0].metric), title)))
    return drawn


class Once:
    """List of distinct values."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self._indices: dict[Hashable, int] = {}

    def index_of(self, value: Any) -> int:
        """Index of a value, which is added if it is new; lists are compared by their content."""
        key = tuple(value) if isinstance(value, list) else value
        if key not in self._indices:
            self._indices[key] = len(self.values)
            self.values.append(value)
        return self._indices[key]


def _questions(cells: Sequence[RunResult]) -> dict[Name, tuple[str, str, str]]:
    """Type, question and target of every sample that some run answered, sorted by name."""
    questions: dict[Name, tuple[str, str, str]] = {}
    for cell in cells:
        lines = cell.samples.to_dict("records")
        for (task, doc), line in zip(cell.samples.index, lines, strict=True):
            name = cell["benchmark"], task, doc
            kind = line["type"] if isinstance(line["type"], str) else ""
            question = kind, str(line["question"]), str(line["target"])
            if questions.setdefault(name, question) != question:
                raise ValueError(
                    f"sample {doc} of {task} has two different questions or targets in {name[0]}: "
                    "give the folder of one experiment"
                )
    if not questions:
        raise ValueError("no run has an answer: no method can reach its budget")
    return dict(sorted(questions.items()))


def _first(names: Iterable[Name], limit: int | None) -> list[Name]:
    """First samples of each benchmark, at most ``limit``."""
    out = []
    for _, same in groupby(names, key=lambda name: name[0]):
        out += list(islice(same, limit))
    return out


def _arm(
    cell: RunResult,
    key: str,
    name: str,
    indices: dict[Name, int],
    traces: Traces,
    texts: Once,
    profiles: Once,
) -> dict[str, Any]:
    """Content of one run, with lists by sample index; None if the run lacks the sample."""
    columns: dict[str, list[Any]] = {
        column: [None] * len(indices)
        for column in ("score", "answer", "tokens", "resident", *CONTROL_NAMES.values())
    }
    traced, config = {}, cell["config"]
    for (task, doc), row in zip(cell.samples.index, cell.samples.to_dict("records"), strict=True):
        index = indices.get((cell["benchmark"], task, doc))
        if index is None:
            continue
        columns["score"][index] = number(row["score"])
        columns["answer"][index] = texts.index_of(str(row["answer"]))
        columns["tokens"][index] = profiles.index_of(row["vision_tokens"])
        columns["resident"][index] = profiles.index_of(row["resident_tokens"])
        for kind in CONTROL_NAMES.values():
            columns[kind][index] = number(row[kind])
        trace = traces.add(cell["folder"], int(doc), config["model"].get("frames"))
        if trace is not None:
            traced[index] = trace
    controls = {kind: columns.pop(kind) for kind in CONTROL_NAMES.values()}
    return {
        "key": key,
        "name": name,
        "look": look(cell["method"]),
        "benchmark": cell["benchmark"],
        "metric": cell.metric,
        "stages": {stage: _class(config[stage]) for stage in STAGES if config.get(stage)},
        **columns,
        "controls": {
            kind: scores
            for kind, scores in controls.items()
            if any(score is not None for score in scores)
        },
        "traces": traced,
    }


def _class(stage: dict[str, Any]) -> str:
    """Class name of a stage's strategy."""
    return str(stage.get("_target_", "")).rpartition(".")[2]
