"""Names of runs and samples on the page: readable texts, and unique keys for links.

Knows nothing about the content of the page.
"""

from collections import Counter
from collections.abc import Sequence
from math import isnan
from typing import Any

from analysis.records.budgets import budget_label
from analysis.records.cells import RunResult

Name = tuple[str, str, Any]  # identifies a sample: benchmark, task, doc_id
MOST_LISTED = 9  # largest number of methods that the introduction names
FIRST_METHOD = "mustdrop"  # the method that a title names first
# Names as papers spell them; other names are shown unchanged.
SPELLED = {
    "mustdrop": "MustDrop", "fastv": "FastV", "sparsevlm": "SparseVLM", "tome": "ToMe",
    "vtw": "VTW", "prumerge": "PruMerge", "prumerge_plus": "PruMerge+", "visionzip": "VisionZip",
    "vispruner": "VisPruner", "fastervlm": "FasterVLM", "divprune": "DivPrune",
    "pyramiddrop": "PyramidDrop", "pocket": "PocketLLaVA", "pocket_vqa": "PocketVQA",
    "pocket_vqa_easy": "PocketVQA (easy)", "pocket_vqa_calibration": "PocketVQA (calibration)",
    "pocket_pope": "PocketPOPE", "pocket_long": "PocketVQA (long answers)",
    "pocket_smol": "PocketSmol", "llava15_7b": "LLaVA-1.5-7B", "llava15_13b": "LLaVA-1.5-13B",
    "gqa": "GQA", "vqav2": "VQAv2", "textvqa": "TextVQA", "vizwiz": "VizWiz", "pope": "POPE",
    "mme": "MME", "mmbench": "MMBench", "scienceqa": "ScienceQA",
    "video_llava_7b": "Video-LLaVA-7B", "qwen2_5_vl_3b": "Qwen2.5-VL-3B",
    "qwen2_5_vl_7b": "Qwen2.5-VL-7B", "tgif_qa": "TGIF-QA", "msvd_qa": "MSVD-QA",
    "msrvtt_qa": "MSRVTT-QA", "activitynet_qa": "ActivityNet-QA",
}  # fmt: skip


def headline(cells: Sequence[RunResult]) -> str:
    """Title of the page without vanilla, such as ``MustDrop and 3 others on PocketVQA``."""
    methods = [name for name in distinct_values(cells, "method") if name != "vanilla"]
    methods.sort(key=lambda name: name != FIRST_METHOD)
    others = len(methods) - 1
    if not methods:
        compared = "vanilla"
    elif others == 0:
        compared = spelled(methods[0])
    elif others == 1:
        compared = f"{spelled(methods[0])} and {spelled(methods[1])}"
    else:
        compared = f"{spelled(methods[0])} and {others} others"
    benchmarks = [spelled(name) for name in distinct_values(cells, "benchmark")]
    benchmark_text = (
        " and ".join(benchmarks) if len(benchmarks) < 3 else f"{len(benchmarks)} benchmarks"
    )
    return f"{compared} on {benchmark_text}"


def introduction(cells: Sequence[RunResult], questions: int) -> str:
    """First lines of the page: number of runs, methods, budgets, models, questions and scores."""
    methods = distinct_values(cells, "method")
    methods.sort(key=lambda name: (name != "vanilla", name != FIRST_METHOD))
    listed = ", ".join(map(spelled, methods[:MOST_LISTED]))
    listed += f" and {len(methods) - MOST_LISTED} more" if len(methods) > MOST_LISTED else ""
    budgets = [budget_label(name) for name in distinct_values(cells, "budget") if name != "none"]
    shares = [label for label in budgets if label.endswith("%")]
    counts = [label for label in budgets if label not in shares]
    amounts = [f"{', '.join(counts)} vision tokens"] if counts else []
    amounts += [f"{', '.join(shares)} of the vision tokens"] if shares else []
    at = f", at budgets of {' and '.join(amounts)}" if amounts else ""
    models = ", ".join(spelled(name) for name in distinct_values(cells, "model"))
    scores = ", ".join(dict.fromkeys(str(cell.metric) for cell in cells))
    runs = "1 run" if len(cells) == 1 else f"{len(cells)} runs"
    question_count = "1 question" if questions == 1 else f"{questions} questions"
    return f"{runs} of {listed}{at}: {models} on {question_count}. Score: {scores}."


def spelled(name: str) -> str:
    """Name of a method, model or benchmark as papers spell it."""
    return SPELLED.get(name, name)


def run_keys(cells: Sequence[RunResult]) -> list[str]:
    """Short unique key of each run for links."""
    short = [f"{cell['method']}-{cell['budget']}-{cell['key']}" for cell in cells]
    counts = Counter(short)
    return [
        key if counts[key] == 1 else "-".join([*cell.group, key])
        for cell, key in zip(cells, short, strict=True)
    ]


def run_names(cells: Sequence[RunResult]) -> list[str]:
    """Name of each run: method, budget, and the fields that distinguish it from other runs."""
    differ = [
        name
        for name in ("experiment", "model", "benchmark")
        if len(distinct_values(cells, name)) > 1
    ]
    out = []
    for cell in cells:
        budget = "" if cell["budget"] in ("none", None) else str(cell["budget"])
        parts = [f"{cell['method']} {budget}".strip(), cell.image or "", cell.variant]
        out.append(", ".join(part for part in [*parts, *(cell[name] for name in differ)] if part))
    return out


def sample_ids(names: Sequence[Name]) -> list[str]:
    """Id of each sample: ``task:doc_id``, after the benchmark if two benchmarks share the task."""
    benchmarks: dict[str, set[str]] = {}
    for benchmark, task, _ in names:
        benchmarks.setdefault(task, set()).add(benchmark)
    return [
        f"{task}:{doc}" if len(benchmarks[task]) == 1 else f"{benchmark}/{task}:{doc}"
        for benchmark, task, doc in names
    ]


def distinct_values(cells: Sequence[RunResult], name: str) -> list[str]:
    """Distinct values of a field of the records, in their order."""
    return list(dict.fromkeys(str(cell[name]) for cell in cells))


def number(value: float | None) -> float | None:
    """Rounded number for JSON; None for NaN."""
    return None if value is None or isnan(value) else round(float(value), 6)
