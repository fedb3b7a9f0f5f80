"""Checks of answers: vanilla beside published numbers, other methods beside it, time and memory."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from analysis.published.bands import index
from analysis.published.matching import about, measures_of
from analysis.published.numbers import REFERENCE, published
from analysis.statistics.intervals import Interval, mean_interval
from experiments.doctor.findings import Finding
from experiments.sweeps.forecast import spoken
from mustdrop.evaluation.context import context_warning
from mustdrop.presets.compose import read_yaml
from mustdrop.presets.folders import conf_dir

USUAL_REASONS = (
    "usual reasons: another chat template or system sentence than in training, images cut or "
    "scaled otherwise, another suffix of the question, answers cut too short, other weights"
)
CUT = 0.5  # share of answers of the greatest length that is too many
SAME = 0.95  # share of equal answers that is too many
FAR = 3.29 / 1.96  # half of an interval of 99.9 % over that of one of 95 %
CONFUSED = 0.7  # share of wrong answers that are others' targets, from which rows may be mixed up
FEW = 4  # least number of wrong answers, and of different ones, for that
SHOWN = 3  # questions whose answers are on the page

Samples = Sequence[Mapping[str, Any]]


def sound_answers(samples: Samples, max_new_tokens: int) -> Finding:
    """Whether vanilla's answers are answers: not empty, not all alike, not cut."""
    answers = [sample["answer"] for sample in samples]
    (commonest, times), *_ = Counter(answers).most_common(1)
    cut = sum(sample["new_tokens"] >= max_new_tokens for sample in samples) / len(samples)
    targets = {str(sample["target"]) for sample in samples}
    facts = {"different": len(set(answers)), "cut": cut}
    faults = []
    if not any(answers):
        faults.append("all answers are empty")
    elif times / len(answers) >= SAME and len(targets) > 1 and len(answers) > 1:
        faults.append(f"{times} of {len(answers)} answers are {commonest!r}, whatever the question")
    if cut > CUT and max_new_tokens > 1:
        faults.append(
            f"{cut:.0%} of the answers reach the limit of {max_new_tokens} tokens: the model does "
            "not stop (chat template, end token), or the limit is too low"
        )
    if faults:
        return Finding("answers", "wrong", "; ".join(faults) + f"; {USUAL_REASONS}", facts)
    text = f"{len(set(answers))} different answers to {len(answers)} questions"
    return Finding("answers", "ok", text, facts)


def accuracy(config: Mapping[str, Any], samples: Samples, metrics: Mapping[str, float]) -> Finding:
    """Vanilla's score on the sample beside the published band, or beside our own record."""
    model, benchmark = config["model"]["name"], config["benchmark"]
    metric, count = benchmark["metric"], len(samples)
    scored = [sample for sample in samples if metric in sample["scores"]]
    values = [sample["scores"][metric] for sample in scored]
    interval = mean_interval(values, [sample["image"] for sample in scored]) if values else None
    low, high, source, scale, name = _expected(model, benchmark["name"], metric, metrics)
    ours = metrics.get(name)
    if ours is None:
        return Finding("accuracy", "note", f"no score of {count} questions can be shown")
    ours, spread = scale * ours, _spread(interval, scale, name == metric)
    shown = f"vanilla {ours:.1f}{_within(spread)} on {count} questions ({name})"
    facts = {"value": ours, "interval": spread, "expected": [low, high], "source": source}
    if low is None or high is None:
        return Finding("accuracy", "note", f"{shown}; nothing to compare with: {source}", facts)
    band = f"{low:g}" if low == high else f"{low:g} to {high:g}"
    if spread is None:
        text = f"{shown}; published {band} ({source}); this sample's interval is unknown"
        return Finding("accuracy", "note", text, facts)
    if spread[1] < low:
        # of sound samples one in forty is below the interval of 95 %, and one in 2,000 that far
        far = ours + FAR * (spread[1] - ours) < low
        text = f"{shown}, {'far ' if far else ''}below {band} ({source}); "
        text += (
            _other_rows(samples) + USUAL_REASONS
            if far
            else "more samples would tell chance from fault"
        )
        return Finding("accuracy", "wrong" if far else "note", text, facts)
    if spread[0] > high:
        text = f"{shown}, above {band} ({source}): is it the same split and scoring?"
        return Finding("accuracy", "warning", text, facts)
    return Finding("accuracy", "ok", f"{shown}; consistent with {band} ({source})", facts)


def context(counts: Mapping[str, Any], benchmark: str) -> list[Finding]:
    """A finding if prompts are longer than the model's context."""
    if not counts["beyond"]:
        return []
    text = context_warning(counts, benchmark).removeprefix("warning: ")
    return [Finding("context", "wrong", text, counts)]


def methods(runs: Mapping[str, Samples]) -> Finding:
    """Scores of several methods on the same questions, and their answers to the first ones."""
    first = next(iter(runs.values()))
    lines = []
    for name, samples in runs.items():
        tokens = sum(sample["counts"]["executed_average"] for sample in samples) / len(samples)
        equal = sum(a["answer"] == b["answer"] for a, b in zip(samples, first, strict=True))
        lines.append(
            f"{name}: {tokens:.0f} tokens a layer, {equal} of {len(samples)} answers as "
            f"{next(iter(runs))}'s"
        )
    for number, sample in enumerate(first[:SHOWN]):
        prompt = sample["question"].strip().splitlines()[0]
        given = "; ".join(f"{name} {samples[number]['answer']!r}" for name, samples in runs.items())
        lines.append(f"{prompt!r}, target {sample['target']!r}: {given}")
    return Finding("methods", "ok", "\n".join(lines), {"methods": list(runs)})


def cost(
    seconds: Mapping[str, float], peak: int | None, available: int, benchmark: str, device: str
) -> Finding:
    """Seconds per question, the time of a whole table, and memory.

    Args:
        seconds: Seconds per question of each method.
        peak: Bytes in use at the largest moment of vanilla's run; None if they are unknown.
        available: Number of questions of the benchmark.
        benchmark: Name of the benchmark.
        device: Name of the device.
    """
    times = ", ".join(f"{name} {value:.3g}" for name, value in seconds.items())
    slowest = max(seconds.values())
    lines = [f"seconds per question on {device}: {times}"]
    whole = f"all {available:,} questions take {spoken(slowest * available)} a run at most"
    runs = table_runs(benchmark)
    if runs:
        whole += f"; the {runs} runs of table1 on {benchmark} {spoken(runs * slowest * available)}"
    lines.append(whole)
    if peak is not None:
        lines.append(f"memory at most {peak / 1e9:.2f} GB in vanilla's run")
    facts = {"seconds": dict(seconds), "peak_bytes": peak, "questions": available, "runs": runs}
    return Finding("cost", "ok", "\n".join(lines), facts)


def table_runs(benchmark: str) -> int | None:
    """Number of runs of the paper's Table 1 on a benchmark; None if it is not in the table."""
    cells = read_yaml(conf_dir() / "experiment/table1.yaml").hydra.sweeper.cells
    count = 0
    for cell in cells:
        if benchmark in cell.benchmark:
            values = [value for key, value in cell.items() if key != "benchmark"]
            sizes = [1 if isinstance(value, str) else len(value) for value in values]
            product = 1
            for size in sizes:
                product *= size
            count += product
    return count or None


def _expected(
    model: str, benchmark: str, metric: str, metrics: Mapping[str, float]
) -> tuple[float | None, float | None, str, float, str]:
    """Lower and upper end of what is known, its source, the scale, and the name of the metric."""
    frame = pd.read_csv(REFERENCE / "measured.csv")
    known = frame.query("model == @model and benchmark == @benchmark")
    for row in known.to_dict("records"):
        if row["metric"] in metrics:
            return row["value"], row["value"], row["record"], 100.0, row["metric"]
    numbers = index(published().to_dict("records"))
    row = {"model": model, "method": "vanilla", "budget": "none"}
    reason = "nothing is published about it"
    for name in [metric, *metrics]:
        for measure in measures_of(benchmark, name):
            band, _ = about(row, measure, numbers)
            if band.values and measure.comparable and name in metrics:
                sources = f"{len(band.sources)} published numbers"
                return band.low, band.high, sources, measure.factor, name
            reason = measure.note or reason
    values = metrics.get(metric, 0.0)
    return None, None, reason, 100.0 if 0 <= values <= 1 else 1.0, metric


def _other_rows(samples: Samples) -> str:
    """Start of a sentence if wrong answers are the targets of other questions; else empty.

    Answers are compared with targets as multisets, beyond the questions that are answered rightly.
    """
    wrong = [s for s in samples if str(s["answer"]).strip() != str(s["target"]).strip()]
    answers, targets = (
        Counter(str(sample[name]).strip() for sample in wrong) for name in ("answer", "target")
    )
    shared = (answers & targets).total()
    if len(wrong) < FEW or len(answers) < FEW or shared < CONFUSED * len(wrong):
        return ""
    return (
        f"{shared} of {len(wrong)} wrong answers are the targets of other questions: do the images "
        "and the targets belong to the rows of their questions? Other "
    )


def _spread(interval: Interval | None, scale: float, applies: bool) -> tuple[float, float] | None:
    if interval is None or not applies:
        return None
    return scale * interval.low, scale * interval.high


def _within(spread: tuple[float, float] | None) -> str:
    return "" if spread is None else f" [{spread[0]:.1f}, {spread[1]:.1f}]"
