"""What runs and samples are called on the page: in words, and in links, where no two are alike.

Knows nothing about what is shown of them.
"""

from collections import Counter
from collections.abc import Sequence
from math import isnan
from typing import Any

from analysis.records.cells import Cell

Name = tuple[str, str, Any]  # of a sample: benchmark, task, doc_id


def keys(cells: Sequence[Cell]) -> list[str]:
    """A short name of each run for links, no two alike."""
    short = [f"{cell['method']}-{cell['budget']}-{cell['key']}" for cell in cells]
    seen = Counter(short)
    return [
        key if seen[key] == 1 else "-".join([*cell.group, key])
        for cell, key in zip(cells, short, strict=True)
    ]


def names(cells: Sequence[Cell]) -> list[str]:
    """What each run is called: method and budget, and what else tells it from the others."""
    differ = [name for name in ("experiment", "model", "benchmark") if len(each(cells, name)) > 1]
    out = []
    for cell in cells:
        budget = "" if cell["budget"] in ("none", None) else str(cell["budget"])
        parts = [f"{cell['method']} {budget}".strip(), cell.image or "", cell.variant]
        out.append(", ".join(part for part in [*parts, *(cell[name] for name in differ)] if part))
    return out


def ids(names: Sequence[Name]) -> list[str]:
    """``task:doc_id``, with the benchmark before where two share a task."""
    benchmarks: dict[str, set[str]] = {}
    for benchmark, task, _ in names:
        benchmarks.setdefault(task, set()).add(benchmark)
    return [
        f"{task}:{doc}" if len(benchmarks[task]) == 1 else f"{benchmark}/{task}:{doc}"
        for benchmark, task, doc in names
    ]


def each(cells: Sequence[Cell], name: str) -> list[str]:
    """The values of a field of the records, each once, in their order."""
    return list(dict.fromkeys(str(cell[name]) for cell in cells))


def number(value: float | None) -> float | None:
    """A number as JSON knows it; None for NaN."""
    return None if value is None or isnan(value) else round(float(value), 6)
