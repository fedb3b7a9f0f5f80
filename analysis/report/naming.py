"""What runs and samples are called on the page: in words, and in links, where no two are alike.

Knows nothing about what is shown of them.
"""

from collections import Counter
from collections.abc import Sequence
from math import isnan
from typing import Any

from analysis.records.cells import RunResult

Name = tuple[str, str, Any]  # of a sample: benchmark, task, doc_id
MANY = 9  # methods that are named in the first lines
LEAD = "mustdrop"  # the method that a title names first
# Names as papers spell them; others stand as they are.
SPELLED = {
    "mustdrop": "MustDrop", "fastv": "FastV", "sparsevlm": "SparseVLM", "tome": "ToMe",
    "vtw": "VTW", "prumerge": "PruMerge", "prumerge_plus": "PruMerge+", "visionzip": "VisionZip",
    "vispruner": "VisPruner", "fastervlm": "FasterVLM", "divprune": "DivPrune",
    "pyramiddrop": "PyramidDrop", "pocket": "PocketLLaVA", "pocket_vqa": "PocketVQA",
    "pocket_vqa_easy": "PocketVQA (easy)", "pocket_vqa_calibration": "PocketVQA (calibration)",
    "pocket_pope": "PocketPOPE", "llava15_7b": "LLaVA-1.5-7B", "llava15_13b": "LLaVA-1.5-13B",
    "gqa": "GQA", "vqav2": "VQAv2", "textvqa": "TextVQA", "vizwiz": "VizWiz", "pope": "POPE",
    "mme": "MME", "mmbench": "MMBench", "scienceqa": "ScienceQA",
}  # fmt: skip


def headline(cells: Sequence[RunResult]) -> str:
    """What was compared: ``MustDrop and 3 others on PocketVQA``. Vanilla is what all start from."""
    methods = [name for name in each(cells, "method") if name != "vanilla"]
    methods.sort(key=lambda name: name != LEAD)
    others = len(methods) - 1
    if not methods:
        compared = "vanilla"
    elif others == 0:
        compared = spelled(methods[0])
    elif others == 1:
        compared = f"{spelled(methods[0])} and {spelled(methods[1])}"
    else:
        compared = f"{spelled(methods[0])} and {others} others"
    benchmarks = [spelled(name) for name in each(cells, "benchmark")]
    where = " and ".join(benchmarks) if len(benchmarks) < 3 else f"{len(benchmarks)} benchmarks"
    return f"{compared} on {where}"


def lede(cells: Sequence[RunResult], questions: int) -> str:
    """The first lines of a page: how many runs, of which methods, at which budgets, on what."""
    methods = each(cells, "method")
    methods.sort(key=lambda name: (name != "vanilla", name != LEAD))
    listed = ", ".join(map(spelled, methods[:MANY]))
    listed += f" and {len(methods) - MANY} more" if len(methods) > MANY else ""
    budgets = [name.removeprefix("t") for name in each(cells, "budget") if name != "none"]
    at = f", at budgets of {', '.join(budgets)} vision tokens" if budgets else ""
    models = ", ".join(spelled(name) for name in each(cells, "model"))
    scores = ", ".join(dict.fromkeys(str(cell.metric) for cell in cells))
    runs = "1 run" if len(cells) == 1 else f"{len(cells)} runs"
    asked = "1 question" if questions == 1 else f"{questions} questions"
    return f"{runs} of {listed}{at}: {models} on {asked}. Score: {scores}."


def spelled(name: str) -> str:
    """A method, model or benchmark as papers spell it."""
    return SPELLED.get(name, name)


def keys(cells: Sequence[RunResult]) -> list[str]:
    """A short name of each run for links, no two alike."""
    short = [f"{cell['method']}-{cell['budget']}-{cell['key']}" for cell in cells]
    seen = Counter(short)
    return [
        key if seen[key] == 1 else "-".join([*cell.group, key])
        for cell, key in zip(cells, short, strict=True)
    ]


def names(cells: Sequence[RunResult]) -> list[str]:
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


def each(cells: Sequence[RunResult], name: str) -> list[str]:
    """The values of a field of the records, each once, in their order."""
    return list(dict.fromkeys(str(cell[name]) for cell in cells))


def number(value: float | None) -> float | None:
    """A number as JSON knows it; None for NaN."""
    return None if value is None or isnan(value) else round(float(value), 6)
